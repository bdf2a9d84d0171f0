"""One model from several of the same shape: two trees of parameters in memory, however many models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from jaxtyping import Array

from jaxret.errors import InputError
from jaxret.ops.merging import slerp
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.layouts import Description, describe, loaded_params
from jaxret.runtime.model import Model


@dataclass(frozen=True)
class Ingredient:
    """One model to merge.

    Attributes:
      path: a folder of any layout, or "hf:org/name".
      step: of a workdir; the latest by default.
    """

    path: str
    step: int | None = None

    def __str__(self) -> str:
        return self.path if self.step is None else f"{self.path}@{self.step}"

    @classmethod
    def parsed(cls, text: str) -> Ingredient:
        """From "folder" or "folder@step"."""
        path, at, step = text.rpartition("@")
        return cls(path, int(step)) if at and step.isdigit() else cls(text)


def last_steps(workdir: str | Path, count: int) -> list[Ingredient]:
    """The last `count` checkpoints of a run, the oldest first; step 0, the untrained model, is not one of them.

    Raises:
      InputError: the run has fewer.
    """
    checkpoints = Checkpoints(Path(workdir) / "checkpoints", read_only=True)
    try:
        steps = [step for step in checkpoints.steps() if step]
    finally:
        checkpoints.close()
    if not 1 <= count <= len(steps):
        problem = f"cannot take {count} of {len(steps)} trained checkpoints"
        raise InputError(checkpoints.folder, problem, "Give fewer, or train with a larger train.keep.")
    return [Ingredient(str(workdir), step) for step in steps[-count:]]


def weighted_sum(ingredients: Sequence[Ingredient], weights: Sequence[float], mesh: Mesh) -> tuple[Model, Any]:
    """The first one's description with `sum_i weight_i * parameters_i`, added up in float32.

    Raises:
      InputError: the models differ in shape or tokeniser; every difference is listed, before a tensor is read.
    """
    if len(ingredients) != len(weights):
        raise InputError("weights", f"{len(weights)} for {len(ingredients)} models", "Give one for each.")
    described = checked(ingredients)
    add = jax.jit(_added, donate_argnums=0)
    total: Any = None
    for description, one, weight in zip(described, ingredients, np.asarray(weights, np.float32), strict=True):
        params = loaded_params(description, mesh, step=one.step)
        total = jax.jit(_scaled)(params, weight) if total is None else add(total, params, weight)
        jax.block_until_ready(total)  # the next model is not read while this one is still held
    return described[0].model, total


def on_the_arc(first: Ingredient, second: Ingredient, t: float, mesh: Mesh) -> tuple[Model, Any]:
    """The first one's description with the parameters at `t` between both, see `ops.merging.slerp`."""
    described = checked((first, second))
    pair = [
        loaded_params(description, mesh, step=one.step)
        for description, one in zip(described, (first, second), strict=True)
    ]
    return described[0].model, jax.jit(partial(slerp, t=t), donate_argnums=0)(*pair)


def checked(ingredients: Sequence[Ingredient]) -> list[Description]:
    """What each is; InputError where one has not the first one's parameters or tokeniser."""
    described = [describe(one.path) for one in ingredients]
    wanted = _shapes(described[0].model)
    for one, other in zip(ingredients[1:], described[1:], strict=True):
        found = _shapes(other.model)
        apart = {
            f"only in {ingredients[0]}": sorted(wanted.keys() - found.keys()),
            f"only in {one}": sorted(found.keys() - wanted.keys()),
            "of another shape": [
                f"{name} {list(wanted[name])} and {list(found[name])}"
                for name in sorted(wanted.keys() & found.keys())
                if wanted[name] != found[name]
            ],
        }
        problems = [f"{what}: {', '.join(names)}" for what, names in apart.items() if names]
        if other.model.tokenizer.fingerprint != described[0].model.tokenizer.fingerprint:
            problems.append("another tokeniser")
        if problems:
            fix = "Merge models that were tuned from the same one."
            raise InputError(str(one), f"cannot be merged with {ingredients[0]}; {'; '.join(problems)}", fix)
    return described


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in flatten_dict(model.abstract_params(), sep="/").items()}


def _scaled(params: Any, weight: Array) -> Any:
    return jax.tree.map(lambda x: weight * x.astype(jnp.float32), params)


def _added(total: Any, params: Any, weight: Array) -> Any:
    return jax.tree.map(lambda sum_, x: sum_ + weight * x.astype(jnp.float32), total, params)
