"""Folders on this machine for checkpoints on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from jaxret.errors import InputError
from jaxret.files import existing_folder

HUB = "hf:"
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TEXT = re.compile(r"(.*/)?(.*\.(json|jinja|txt|model)|artifact\.metadata)")
_WEIGHTS = re.compile(r"(.*/)?((model|adapter_model)(-\d+-of-\d+)?\.safetensors|.*_linear\.(pt|safetensors))")
_PICKLES = re.compile(r"(.*/)?(pytorch_model|adapter_model)(-\d+-of-\d+)?\.bin")
_OTHERS = ("onnx/", "openvino/", "coreml/", ".git", "original/")


def local_folder(path: str, revision: str | None = None) -> Path:
    """The folder itself, or for "hf:organisation/name" a snapshot in the hub's cache, downloaded where it is missing.

    HF_HUB_OFFLINE, HF_HOME and HF_TOKEN are honoured. Only the files of `wanted_files` are downloaded. Without a
    network the cached snapshot is used.

    Args:
      path: a folder or "hf:organisation/name".
      revision: a branch, tag or commit of the repository.

    Raises:
      InputError: no such folder, no such repository or revision, or no network and nothing in the cache.
    """
    if not path.startswith(HUB):
        if not Path(path).is_dir() and re.fullmatch(r"[\w-]+/[\w.-]+", path):
            raise InputError(path, "no such folder", f'Check the path; for a model on the hub write "{HUB}{path}".')
        return existing_folder(path)
    repository = path.removeprefix(HUB)
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(path, "not the name of a repository", 'Write "hf:organisation/name".')
    return _snapshot(repository, revision)


def wanted_files(names: Iterable[str]) -> list[str]:
    """The files of a repository that a layout may need: JSON, tokenisers, weights; pickles only without safetensors."""
    names = [name for name in names if not name.startswith(_OTHERS)]
    pickles = [name for name in names if _PICKLES.fullmatch(name)]
    weights = [name for name in names if _WEIGHTS.fullmatch(name)]
    replaced = {name.rpartition("/")[0] for name in weights if "model" in name.rpartition("/")[2]}
    pickles = [name for name in pickles if name.rpartition("/")[0] not in replaced]
    return sorted([name for name in names if _TEXT.fullmatch(name)] + weights + pickles)


def _snapshot(repository: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    place = HUB + repository
    chosen: list[str] | None = None
    commit = revision
    problem = "it is not in the cache"
    try:
        info = HfApi().model_info(repository, revision=revision)
        chosen, commit = wanted_files(file.rfilename for file in info.siblings or ()), info.sha
    except (RepositoryNotFoundError, HFValidationError):
        fix = "Check the name; for a private or gated repository set HF_TOKEN."
        raise InputError(place, "no such repository", fix) from None
    except RevisionNotFoundError:
        raise InputError(place, f"no revision {revision!r}", "Check the revision.") from None
    except OfflineModeIsEnabled:
        problem = "HF_HUB_OFFLINE is set, and it is not in the cache"
    except Exception as error:  # the library passes on every error of its transport
        problem = f"cannot be reached ({type(error).__name__}), and it is not in the cache"
    try:
        return Path(
            snapshot_download(repository, revision=commit, allow_patterns=chosen, local_files_only=chosen is None)
        )
    except LocalEntryNotFoundError:
        fix = "Download it on a machine with a network, and give the folder."
        raise InputError(place, problem, fix) from None
