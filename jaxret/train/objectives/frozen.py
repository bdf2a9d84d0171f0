"""A language model that does not learn: a teacher, or a decoder that others learn to speak to."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax import lax

from jaxret.errors import InputError
from jaxret.runtime.layouts import Description, describe, loaded_params
from jaxret.runtime.model import Model
from jaxret.runtime.precision import cast, compute_dtype
from jaxret.train.objectives.predicted import has_head


def language_model(path: str, setting: str, **overrides: Any) -> Description:
    """A checkpoint of any layout as a language model: with the head that its file, or SPLADE's, has.

    Args:
      path: a folder or "hf:organisation/name".
      setting: what is named in errors.
      overrides: see `runtime.layouts.describe`.

    Raises:
      InputError: the checkpoint has no such head.
    """
    found = describe(path, **overrides)
    if not has_head(found.model) and not found.workdir:
        found = describe(path, heads=("lexical",), **overrides)
    if not has_head(found.model):
        raise InputError(setting, f"{path} has no language model's head", "Give a checkpoint that has one.")
    return found


def parameters(model: Model) -> Any:
    """Parameters to be overwritten by `loaded`, in the compute dtype, with logical axes."""
    return cast(model.boxed(0), compute_dtype(model.precision))


def loaded(description: Description, placed: Any) -> Any:
    """The checkpoint's parameters, where the placed ones lie."""
    mesh = jax.tree.leaves(placed)[0].sharding.mesh
    return loaded_params(description, mesh, compute_dtype(description.model.precision))


def still(params: Any) -> Any:
    """The same, through which no gradient flows."""
    return jax.tree.map(lax.stop_gradient, params)


def in_chunks_of(model: Model, teacher: Model) -> Model:
    """The teacher, which reads as many rows at a time as the model that learns."""
    return dataclasses.replace(teacher, chunk_rows=model.chunk_rows)


def check_same_vocabulary(setting: str, teacher: Model, student: Model) -> None:
    """Makes sure that both models mean the same by each id.

    Raises:
      InputError: their vocabularies are not of one size, or have other pieces.
    """
    sizes = [model.config.encoder.vocab_size for model in (teacher, student)]
    fix = "Choose a teacher with the tokeniser of the model."
    if sizes[0] != sizes[1]:
        raise InputError(setting, f"its vocabulary has {sizes[0]} entries, the model's {sizes[1]}", fix)
    ids = range(min(teacher.tokenizer.size, student.tokenizer.size))
    pairs = zip(teacher.tokenizer.pieces(ids), student.tokenizer.pieces(ids), strict=True)
    for number, (theirs, ours) in enumerate(pairs):
        if theirs != ours:
            raise InputError(setting, f"its id {number} is {theirs!r}, the model's {ours!r}", fix)
