"""Parameters of a described checkpoint, streamed onto a mesh."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from jaxret.errors import InputError
from jaxret.nn.convert.table import LAYER, LISTED, Rule, Table
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.layouts.description import Description
from jaxret.runtime.network import Network

Missing = Literal["raise", "init"]


def loaded_params(
    description: Description,
    mesh: Mesh,
    dtype: Any = jnp.float32,
    missing: Missing = "raise",
    seed: int = 0,
    step: int | None = None,
) -> Any:
    """The parameters, each where the mesh's rules put it, read one tensor at a time.

    Args:
      description: what `describe` says.
      mesh: where they go.
      dtype: of the parameters.
      missing: what to do about heads that no file has: "raise", or "init" for fresh ones.
      seed: of the fresh ones.
      step: of a folder of jaxret's own; the latest by default.

    Raises:
      InputError: tensors that are missing, unknown or misshapen, all listed; parameters that no file has.
    """
    if missing not in ("raise", "init"):
        raise InputError("missing", f"unknown {missing!r}", "Choose one of raise, init.")
    model = description.model
    if description.workdir:
        return _restored(description.workdir, model, mesh, dtype, step)
    if step is not None:
        raise InputError("step", "a published checkpoint has no steps", "Leave it out.")
    wanted = flatten_dict(model.abstract_params(mesh, dtype), sep="/")
    filled: dict[str, Any] = {}
    for part in description.parts:
        tensors = part.opened(part.path)
        table = part.table(tensors)
        prefixes = [prefix for prefix in part.ours if any(map(_under(prefix), wanted))]
        if missing == "init":
            prefixes = [prefix for prefix in prefixes if prefix == "encoder" or _present(table, tensors, prefix)]
        ours = {path: like for path, like in wanted.items() if any(_under(prefix)(path) for prefix in prefixes)}
        if ours:
            idle = tuple(_pattern(rule) for rule in table.rules if not any(_under(p)(rule.ours) for p in prefixes))
            table = replace(table, ignored=(*table.ignored, *idle))
            params = table.loaded(tensors, unflatten_dict(ours, sep="/"), dtype=dtype, place=part.path)
            filled |= flatten_dict(params, sep="/")
    left = {path: like for path, like in wanted.items() if path not in filled}
    if left and missing == "raise":
        place = description.parts[0].path if description.parts else "checkpoint"
        fix = 'Give missing="init" to start them fresh, or leave out the heads that need them.'
        raise InputError(place, f"no file has {', '.join(sorted(left)[:LISTED])}", fix)
    filled |= _fresh(model, left, seed, dtype) if left else {}
    return unflatten_dict({path: filled[path] for path in wanted}, sep="/")


def _under(prefix: str) -> Callable[[str], bool]:
    return lambda path: path == prefix or path.startswith(f"{prefix}/")


def _present(table: Table, names: Iterable[str], prefix: str) -> bool:
    """Whether a file has any tensor of a head."""
    patterns = [_pattern(rule) for rule in table.rules if _under(prefix)(rule.ours)]
    return any(re.fullmatch(pattern, name) for name in names for pattern in patterns)


def _pattern(rule: Rule) -> str:
    return re.escape(rule.theirs).replace(re.escape(LAYER), r"\d+")


def _fresh(model: Network, likes: Mapping[str, Any], seed: int, dtype: Any) -> dict[str, Any]:
    def init() -> dict[str, Any]:
        every = flatten_dict(model.init(seed), sep="/")
        return {path: every[path].astype(dtype) for path in likes}

    return jax.jit(init, out_shardings={path: like.sharding for path, like in likes.items()})()


def _restored(workdir: Path, model: Network, mesh: Mesh, dtype: Any, step: int | None) -> Any:
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    try:
        return checkpoints.restore_params(model.abstract_params(mesh, dtype), step)[0]
    finally:
        checkpoints.close()
