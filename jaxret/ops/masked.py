"""Softmaxes and means over the kept entries of a row; value and gradient are finite where nothing is kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Shaped


def precise(x: Shaped[Array, "*n"]) -> Float[Array, "*n"]:
    """In float32, or wider where `x` is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def everywhere(where: Bool[Array, "*n"] | None, x: Shaped[Array, "*n"]) -> Bool[Array, "*n"]:
    """The mask, or one that keeps all of `x`."""
    return jnp.ones(x.shape, jnp.bool_) if where is None else where


def masked_logsumexp(logits: Float[Array, "*n c"], where: Bool[Array, "*n c"]) -> Float[Array, "*n"]:
    """`log sum exp` over kept entries; 0 where nothing is kept."""
    return jnp.where(jnp.any(where, axis=-1), jax.nn.logsumexp(_lowered(logits, where), axis=-1), 0.0)


def masked_log_softmax(logits: Float[Array, "*n c"], where: Bool[Array, "*n c"]) -> Float[Array, "*n c"]:
    """Log-probabilities among kept entries; 0 at the others."""
    kept = jnp.where(where, precise(logits), 0.0)
    return jnp.where(where, kept - masked_logsumexp(logits, where)[..., None], 0.0)


def masked_softmax(logits: Float[Array, "*n c"], where: Bool[Array, "*n c"]) -> Float[Array, "*n c"]:
    """Probabilities among kept entries; 0 at the others."""
    return jnp.where(where, jnp.exp(masked_log_softmax(logits, where)), 0.0)


def suffix_logsumexp(logits: Float[Array, "b n"], where: Bool[Array, "b n"]) -> Float[Array, "b n"]:
    """`log sum exp` over kept entries from each position on; meaningless where none is kept from there on."""
    return lax.cumlogsumexp(_lowered(logits, where), axis=1, reverse=True)


def masked_mean(x: Float[Array, "*n c"], where: Bool[Array, "*n c"]) -> Float[Array, "*n"]:
    """The mean over kept entries; 0 where nothing is kept."""
    x = precise(x)
    count = jnp.maximum(jnp.sum(where, axis=-1, dtype=x.dtype), 1)
    return jnp.sum(jnp.where(where, x, 0.0), axis=-1) / count


def _lowered(logits: Float[Array, "*n c"], where: Bool[Array, "*n c"]) -> Float[Array, "*n c"]:
    """Masked entries at half the lowest number: no exponential is left of them, and no infinity arises."""
    logits = precise(logits)
    return jnp.where(where, logits, jnp.finfo(logits.dtype).min / 2)
