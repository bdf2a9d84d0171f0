"""Losses over the vocabulary, one a position: masked language modelling, with labels or with a teacher."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.ops.masked import everywhere, precise


def masked_lm(
    logits: Float[Array, "*n v"], token_ids: Int[Array, "*n"], *, where: Bool[Array, "*n"] | None = None
) -> Float[Array, "*n"]:
    """`-log softmax(logits)` at the token that was there; 0 where `where` is False (BERT, Devlin et al. 2019).

    RetroMAE (Xiao et al. 2022) adds up two of them: the encoder's over the positions it masked, and the enhanced
    decoder's over all positions but the first and the last.
    """
    where = everywhere(where, token_ids)
    shares = jax.nn.log_softmax(_kept(logits, where), axis=-1)
    target = jnp.take_along_axis(shares, jnp.where(where, token_ids, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(where, -target, 0.0)


def masked_lm_distillation(
    logits: Float[Array, "*n v"],
    teacher: Float[Array, "*n v"],
    temperature: float = 1.0,
    *,
    where: Bool[Array, "*n"] | None = None,
) -> Float[Array, "*n"]:
    """`-sum_v softmax(teacher) log softmax(logits)`, both over the temperature; 0 at positions where `where` is False.

    Granite's RetroMAE distillation (Awasthy et al. 2025, sec. 4.2) puts it in the place of the encoder's `masked_lm`;
    one that should match the teacher and no more is `masked_lm_distillation` less its value at `logits = teacher`.
    """
    where = everywhere(where, logits[..., 0])
    shares = jax.nn.log_softmax(_kept(logits, where) / temperature, axis=-1)
    target = jax.nn.softmax(_kept(teacher, where) / temperature, axis=-1)
    return jnp.where(where, -jnp.sum(target * shares, axis=-1), 0.0)


def _kept(logits: Float[Array, "*n v"], where: Bool[Array, "*n"]) -> Float[Array, "*n v"]:
    return jnp.where(where[..., None], precise(logits), 0.0)
