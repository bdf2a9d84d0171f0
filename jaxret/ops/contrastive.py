"""Contrastive losses over a score matrix. Unreduced, float32; the caller reduces."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def info_nce(
    scores: Float[Array, "b c"],
    positive: Int[Array, " b"],
    temperature: float,
    *,
    where: Bool[Array, "b c"] | None = None,
) -> Float[Array, " b"]:
    """`-log softmax(scores / temperature)` at the positive column (van den Oord et al. 2018, eq. 4).

    Columns where `where` is False take no part; the positive always does.
    """
    logits = scores.astype(jnp.float32) / temperature
    own = jax.nn.one_hot(positive, scores.shape[1], dtype=jnp.bool_)
    if where is not None:
        logits = jnp.where(where | own, logits, -jnp.inf)
    target = jnp.sum(jnp.where(own, logits, 0.0), axis=1)
    return jax.nn.logsumexp(logits, axis=1) - target
