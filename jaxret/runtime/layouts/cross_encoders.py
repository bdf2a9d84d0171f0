"""Layouts of cross-encoders: transformers' sequence classifiers with one label, and jaxret's own workdirs.

sentence-transformers' CrossEncoder writes such a classifier too; what it adds, in any of its versions, is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from jaxret.data.pairs import PairConfig
from jaxret.errors import InputError
from jaxret.files import atomic_folder, read_json, write_json
from jaxret.nn.convert.score_heads import CLASS, check_one_label, score_head_row, score_record, score_table
from jaxret.nn.cross_encoder import CrossEncoderConfig
from jaxret.runtime.cross_encoder import DESCRIPTION, CrossEncoderModel
from jaxret.runtime.hub import local_folder
from jaxret.runtime.layouts.body import CONFIG, TOKENIZER_CONFIG, Body, family_of, write_body
from jaxret.runtime.layouts.description import Description, always
from jaxret.runtime.layouts.loading import Missing, loaded_params
from jaxret.runtime.layouts.modules import MODULES, modules_in
from jaxret.runtime.layouts.records import field, record_in
from jaxret.runtime.layouts.sentence_library import LIBRARY, TRANSFORMER
from jaxret.runtime.layouts.settings import SETTINGS, settings_in
from jaxret.runtime.layouts.workdir import save_workdir

LAYOUTS = ("huggingface", "jaxret")
ACTIVATIONS = {
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "identity": "torch.nn.modules.linear.Identity",
}
_OLDER = "sbert_ce_default_activation_function"  # sentence-transformers before 4


def is_cross_encoder(path: str | Path) -> bool:
    """Whether a folder holds a cross-encoder: a workdir of one, or a sequence classifier."""
    folder = Path(path)
    if (folder / DESCRIPTION).is_file():
        return True
    record = record_in(folder / CONFIG, optional=True)
    return any(str(name).endswith(CLASS) for name in record.get("architectures") or ())


def describe_cross_encoder(path: str | Path, *, revision: str | None = None, **overrides: Any) -> Description:
    """Everything about a cross-encoder but its tensors.

    Args:
      path: a workdir, a folder with a sequence classifier, or "hf:organisation/name".
      revision: of the hub's repository.
      overrides: fields of PairConfig, `activation_fn`, `precision`, `attention`.

    Raises:
      InputError: no cross-encoder, an unknown family, several labels, or a setting that jaxret does not do; names file
        and field.
    """
    folder = local_folder(str(path), revision)
    if not is_cross_encoder(folder):
        fix = f"Give a folder with {DESCRIPTION}, or whose config.json names a class ...{CLASS}."
        raise InputError(folder, "no cross-encoder", fix)
    settings = settings_in(folder) | overrides
    if (folder / DESCRIPTION).is_file():
        return Description(_overridden(CrossEncoderModel.load_description(folder), settings), workdir=folder)
    body, place = Body.read(folder), folder / CONFIG
    row = score_head_row(body.family, place)
    check_one_label(body.record, place)
    library = _library(folder)
    config = CrossEncoderConfig(body.encoder, row.read(body.record), _activation(body.record, library, folder))
    limit = field(record_in(folder / TRANSFORMER, optional=True), "max_seq_length", int, folder / TRANSFORMER, 0)
    model = CrossEncoderModel(config, PairConfig(body.longest(limit)), body.tokenizer, origin=body.origin(LAYOUTS[0]))
    part = dataclasses.replace(body.part("encoder", extra=row.rules), table=always(score_table(body.family)))
    return Description(_overridden(model, settings), (part,))


def load_cross_encoder(
    path: str | Path,
    mesh: Mesh,
    *,
    step: int | None = None,
    dtype: Any = jnp.float32,
    missing: Missing = "raise",
    seed: int = 0,
    revision: str | None = None,
    **overrides: Any,
) -> tuple[CrossEncoderModel, Any]:
    """A cross-encoder and its parameters, placed on the mesh: `describe_cross_encoder`, then `loaded_params`."""
    description = describe_cross_encoder(path, revision=revision, **overrides)
    return description.model, loaded_params(description, mesh, dtype, missing, seed, step)


def save_cross_encoder(
    path: str | Path, model: CrossEncoderModel, params: Any, layout: str = "auto", dtype: Any = None
) -> Path:
    """Writes a cross-encoder into a new or empty folder: all of it or nothing.

    Args:
      path: the folder, which is returned.
      model: what it is.
      params: its parameters.
      layout: "huggingface" (transformers and sentence-transformers open it), "jaxret", or "auto": the one that the
        model came from, else "jaxret".
      dtype: of the tensors; that of the parameters by default.

    Raises:
      InputError: the folder is not empty, no such layout, or the family's config.json cannot say what the model does.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(path, "is not empty", "Give a new folder, or remove that one first.")
    layout = model.origin.get("layout", "jaxret") if layout == "auto" else layout
    if layout not in LAYOUTS:
        raise InputError("layout", f"unknown {layout!r}", f"Choose one of auto, {', '.join(LAYOUTS)}.")
    with atomic_folder(path) as folder:
        if layout == "jaxret":
            save_workdir(folder, model, params, dtype)
        else:
            _save_classifier(folder, model, params, dtype)
    return path


def _overridden(model: CrossEncoderModel, settings: Mapping[str, Any]) -> CrossEncoderModel:
    text = [field.name for field in dataclasses.fields(PairConfig)]
    known = [*text, "activation_fn", "precision", "attention"]
    for name in settings:
        if name not in known:
            raise InputError("overrides", f"unknown setting {name!r}", f"Choose from {', '.join(known)}.")
    changes = {name: value for name, value in settings.items() if name in ("precision", "attention")}
    activation = settings.get("activation_fn", model.config.activation_fn)
    return dataclasses.replace(
        model,
        config=dataclasses.replace(model.config, activation_fn=activation),
        text=dataclasses.replace(model.text, **{name: settings[name] for name in text if name in settings}),
        **changes,
    )


def _library(folder: Path) -> dict[str, Any]:
    """config_sentence_transformers.json; InputError where the library does more than run the classifier."""
    if (folder / MODULES).is_file() and len(modules := modules_in(folder)) > 1:
        kinds = ", ".join(module.kind for module in modules)
        raise InputError(folder / MODULES, f"the modules are {kinds}", "Known is a sequence classifier alone.")
    record = record_in(folder / LIBRARY, optional=True)
    prompts = field(record, "prompts", dict, folder / LIBRARY, {})
    if prompts.get(record.get("default_prompt_name")):
        fix = "Put the prompt before the queries yourself, and remove default_prompt_name."
        raise InputError(f"{folder / LIBRARY}: default_prompt_name", "queries get a prompt", fix)
    return record


def _activation(record: Mapping[str, Any], library: Mapping[str, Any], folder: Path) -> str:
    """Our name of what sentence-transformers puts behind the score; sigmoid, as there, where nothing is said."""
    found = {
        LIBRARY: library.get("activation_fn"),
        CONFIG: (record.get("sentence_transformers") or {}).get("activation_fn") or record.get(_OLDER),
    }
    names = {theirs.rpartition(".")[2]: ours for ours, theirs in ACTIVATIONS.items()}
    for file, spelled in found.items():
        if spelled is not None:
            ours = names.get(str(spelled).rpartition(".")[2]) if str(spelled).startswith("torch.") else None
            if ours is None:
                fix = f"Known are {', '.join(ACTIVATIONS.values())}."
                raise InputError(f"{folder / file}: activation_fn", f"unknown {spelled!r}", fix)
            return ours
    return "sigmoid"


def _save_classifier(folder: Path, model: CrossEncoderModel, params: Any, dtype: Any) -> None:
    family = family_of(model)
    row, head = score_head_row(family, "EncoderConfig"), score_record(model.config.head, family)
    parts: dict[str, Any] = {"architecture": row.architecture, "prefixed": True, "extra": row.rules}
    write_body(folder, model, params, dtype, **parts)
    record = {name: value for name, value in read_json(folder / CONFIG).items() if name not in (_OLDER, "num_labels")}
    library = (record.get("sentence_transformers") or {}) | {"activation_fn": ACTIVATIONS[model.config.activation_fn]}
    write_json(folder / CONFIG, record | head | {"sentence_transformers": {"version": "4.0.0"} | library})
    again = Body.read(folder)
    if again.longest() != model.text.max_len:
        settings = record_in(folder / TOKENIZER_CONFIG, optional=True) | {"model_max_length": model.text.max_len}
        write_json(folder / TOKENIZER_CONFIG, settings)
    plain = CrossEncoderModel(model.config, PairConfig(model.text.max_len), model.tokenizer)
    pairs = ((model, plain), (model.text, plain.text))
    names = ("precision", "attention", "truncation", "title_separator")
    left = {name: getattr(mine, name) for mine, other in pairs for name in names if _differs(mine, other, name)}
    if left:
        write_json(folder / SETTINGS, left)


def _differs(mine: Any, other: Any, name: str) -> bool:
    return hasattr(mine, name) and getattr(mine, name) != getattr(other, name)
