"""Learned sparse representations: one non-negative weight for each vocabulary entry a text contains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

TOKENS_AT_ONCE = 32


def vocabulary_weights(
    weights: Float[Array, "b l"], token_ids: Int[Array, "b l"], vocab_size: int
) -> Float[Array, "b v"]:
    """Token weights spread over the vocabulary, the maximum where a token repeats (BGE-M3, section 3.2).

    Weights must be non-negative; a position that should not count carries weight 0, and so must negative ids.
    """
    rows = jnp.arange(weights.shape[0])[:, None]
    return jnp.zeros((weights.shape[0], vocab_size), jnp.float32).at[rows, token_ids].max(weights.astype(jnp.float32))


def lexical_scores(q: Float[Array, "b v"], d: Float[Array, "c v"]) -> Float[Array, "b c"]:
    """Dot products over the vocabulary, accumulated in float32."""
    return jnp.einsum("bv,cv->bc", q, d, preferred_element_type=jnp.float32)


def log1p_relu(logits: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """`log(1 + relu(x))` (SPLADE, Formal et al. 2021, eq. 1)."""
    return jnp.log1p(jax.nn.relu(logits))


SATURATIONS: dict[str, Callable[[Array], Array]] = {
    "log1p": log1p_relu,
    "log1p_twice": lambda logits: jnp.log1p(log1p_relu(logits)),
}


def vocabulary_logits(
    states: Float[Array, "b l d"],
    table: Float[Array, "v d"],
    bias: Float[Array, " v"],
    mask: Bool[Array, "b l"],
    saturation: Callable[[Array], Array],
    pooling: str,
) -> Float[Array, "b v"]:
    """Saturated logits of kept tokens, their maximum ("max") or sum ("sum") over each text, in float32.

    The logits of 32 tokens of a text at a time are in memory, in the backward pass too.
    """
    b, length, width = states.shape
    steps = -(-length // TOKENS_AT_ONCE)
    padding = steps * TOKENS_AT_ONCE - length
    chunks = jnp.pad(states, ((0, 0), (0, padding), (0, 0))).reshape(b, steps, TOKENS_AT_ONCE, width)
    kept = jnp.pad(mask, ((0, 0), (0, padding))).reshape(b, steps, TOKENS_AT_ONCE)

    @partial(jax.checkpoint, prevent_cse=False)
    def pooled(total: Array, chunk: tuple[Array, Array]) -> tuple[Array, None]:
        x, where = chunk
        logits = jnp.einsum("bld,vd->blv", x, table, preferred_element_type=jnp.float32) + bias[None, None].astype(
            jnp.float32
        )
        weights = jnp.where(where[:, :, None], saturation(logits), 0.0)
        return (jnp.maximum(total, weights.max(1)) if pooling == "max" else total + weights.sum(1)), None

    start = jnp.zeros((b, table.shape[0]), jnp.float32)
    return lax.scan(pooled, start, (jnp.moveaxis(chunks, 1, 0), jnp.moveaxis(kept, 1, 0)))[0]
