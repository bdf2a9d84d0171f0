"""Learned sparse representations: one non-negative weight for each vocabulary entry a text contains."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def vocabulary_weights(
    weights: Float[Array, "b l"], token_ids: Int[Array, "b l"], vocab_size: int
) -> Float[Array, "b v"]:
    """Token weights spread over the vocabulary, the maximum where a token repeats (BGE-M3, section 3.2).

    Weights must be non-negative; a position that should not count carries weight 0.
    """
    rows = jnp.arange(weights.shape[0])[:, None]
    return jnp.zeros((weights.shape[0], vocab_size), jnp.float32).at[rows, token_ids].max(weights.astype(jnp.float32))


def lexical_scores(q: Float[Array, "b v"], d: Float[Array, "c v"]) -> Float[Array, "b c"]:
    """Dot products over the vocabulary, accumulated in float32."""
    return jnp.einsum("bv,cv->bc", q, d, preferred_element_type=jnp.float32)
