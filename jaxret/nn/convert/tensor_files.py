"""Tensors in a folder or file of weights: opened lazily, written in shards as `transformers` does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from jaxret.errors import InputError
from jaxret.files import read_json, scratch_folder, write_json
from jaxret.nn.convert.lazy_tensor import LazyTensor
from jaxret.nn.convert.safe_pickle import pickled_tensors
from jaxret.nn.convert.safetensors_format import SafetensorsWriter, safetensors_in

INDEX = ".index.json"
NAMES = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
PICKLES = (".bin", ".pt", ".pth")
OURS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
GIT_LFS = b"version https://git-lfs"


def open_tensors(path: str | Path) -> dict[str, LazyTensor]:
    """The tensors of a checkpoint by name, none of them read yet.

    Args:
      path: a folder with the first of `NAMES` that exists, or one `.safetensors`, `.bin`, `.pt` or `.pth` file, or an
        `.index.json` of shards. Pickles are read without torch and cannot run code.

    Raises:
      InputError: nothing to read there, or a truncated, corrupt or dangerous file.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in NAMES if (path / name).is_file()]
        if not found:
            raise InputError(path, "no weights in this folder", f"It needs one of {', '.join(NAMES)}.")
        path = found[0]
    if not path.is_file():
        raise InputError(path, "no such file", "Check the path.")
    with open(path, "rb") as file:
        if file.read(len(GIT_LFS)) == GIT_LFS:
            raise InputError(path, "a Git LFS pointer, not the weights", "Run `git lfs pull` in that folder.")
    if path.name.endswith(INDEX):
        return _sharded_tensors(path)
    if path.suffix == ".safetensors":
        return safetensors_in(path)
    if path.suffix in PICKLES:
        return pickled_tensors(path)
    raise InputError(path, f"unknown kind of weights {path.suffix!r}", f"Give .safetensors, {', '.join(PICKLES)}.")


def _sharded_tensors(index: Path) -> dict[str, LazyTensor]:
    record = read_json(index)
    shards = record.get("weight_map") if isinstance(record, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise InputError(index, "no weight_map from tensor names to files", "Download the index again.")
    opened = {}
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or shard.endswith(INDEX):
            raise InputError(index, f"shard {shard!r} is not a file name", "Keep the shards beside their index.")
        opened[shard] = open_tensors(index.parent / shard)
    absent = [name for name, shard in shards.items() if name not in opened[shard]]
    if absent:
        problem = f"{len(absent)} tensors are not in their shards: {', '.join(absent[:20])}"
        raise InputError(index, problem, "Download the index and all its shards again, from one revision.")
    return {name: opened[shard][name] for name, shard in shards.items()}


def write_safetensors(
    path: str | Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    *,
    max_shard_bytes: int | float = 5e9,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes tensors as they come, one in memory at a time.

    Args:
      path: a folder, for `model.safetensors`, or shards of it and their index where it would be larger than
        `max_shard_bytes`; weights that were there before are replaced. Or a file `*.safetensors`, never sharded.
      tensors: `(name, values)`.
      max_shard_bytes: a shard takes tensors up to this size, and one at least.
      metadata: the header's strings; `{"format": "pt"}` by default, which `transformers` asks for.

    Raises:
      InputError: a name twice, or a dtype that the format lacks. What was there before stays.
    """
    path, metadata = Path(path), {"format": "pt"} if metadata is None else metadata
    if path.suffix == ".safetensors":
        with SafetensorsWriter(path) as writer:
            for name, array in tensors:
                writer.add(name, array)
            writer.close(metadata)
        return
    with scratch_folder(path / "weights") as folder:
        shards, num_parameters = _shards(folder, tensors, max_shard_bytes, metadata)
        names = ["model.safetensors"]
        if len(shards) > 1:
            names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
            weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard.entries}
            totals = {"total_parameters": num_parameters, "total_size": sum(shard.num_bytes for shard in shards)}
            write_json(folder / NAMES[1], {"metadata": totals, "weight_map": dict(sorted(weight_map.items()))})
        for old in path.iterdir():
            if OURS.fullmatch(old.name):
                old.unlink()
        for shard, name in zip(shards, names, strict=True):
            os.replace(shard.path, path / name)
        if len(shards) > 1:
            os.replace(folder / NAMES[1], path / NAMES[1])


def _shards(
    folder: Path, tensors: Iterable[tuple[str, np.ndarray]], max_bytes: int | float, metadata: Mapping[str, str]
) -> tuple[list[SafetensorsWriter], int]:
    """The shards in a temporary folder, and the number of values in all of them."""
    done: list[SafetensorsWriter] = []
    seen: set[str] = set()
    num_parameters = 0
    with ExitStack() as stack:
        shard = stack.enter_context(SafetensorsWriter(folder / "0.safetensors"))
        for name, array in tensors:
            if name in seen:
                raise InputError(folder.parent, f"tensor {name} twice", "Give every tensor a name of its own.")
            if shard.entries and shard.num_bytes + array.nbytes > max_bytes:
                shard.close(metadata)
                done.append(shard)
                shard = stack.enter_context(SafetensorsWriter(folder / f"{len(done)}.safetensors"))
            shard.add(name, array)
            seen.add(name)
            num_parameters += array.size
        shard.close(metadata)
    return [*done, shard], num_parameters
