"""Late interaction: the exact MaxSim score, with a gradient that touches only the matched tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


def maxsim(
    q: Float[Array, "b s k"], d: Float[Array, "c t k"], q_mask: Bool[Array, "b s"], d_mask: Bool[Array, "c t"]
) -> Float[Array, "b c"]:
    """For each query token the best document token, summed over them (ColBERT, Khattab and Zaharia 2020, eq. 3).

    Padding is invisible: masked document tokens are -inf before the maximum, masked query tokens 0 before the
    sum. A document without any kept token scores 0. Products accumulate in float32. The token scores
    of one document at a time are in memory (`b s t`), and the backward pass gathers the matched tokens only.
    """
    best, _ = _best_matches(q, d, d_mask)
    best = jnp.where(q_mask[:, :, None] & jnp.any(d_mask, axis=1)[None, None, :], best, 0.0)
    return jnp.sum(best, axis=1)


def zero_padded_maxsim(
    q: Float[Array, "b s k"], d: Float[Array, "c t k"], q_mask: Bool[Array, "b s"], d_mask: Bool[Array, "c t"]
) -> Float[Array, "b c"]:
    """MaxSim as PyLate has it: a masked document token scores 0, and so beats a document's negative matches."""
    best, _ = _best_matches(q, d, d_mask)
    best = jnp.where(jnp.all(d_mask, axis=1)[None, None, :], best, jnp.maximum(best, 0.0))
    return jnp.sum(jnp.where(q_mask[:, :, None], best, 0.0), axis=1)


def mean_maxsim(
    q: Float[Array, "b s k"], d: Float[Array, "c t k"], q_mask: Bool[Array, "b s"], d_mask: Bool[Array, "c t"]
) -> Float[Array, "b c"]:
    """MaxSim over the number of query tokens (BGE-M3, section 3.2); 0 for a query without any."""
    count = jnp.maximum(jnp.sum(q_mask, axis=1, dtype=jnp.float32), 1.0)
    return maxsim(q, d, q_mask, d_mask) / count[:, None]


RULES = {"exact": maxsim, "colbert": maxsim, "pylate": zero_padded_maxsim, "bge_m3": mean_maxsim}


@jax.custom_vjp
def _best_matches(
    q: Float[Array, "b s k"], d: Float[Array, "c t k"], d_mask: Bool[Array, "c t"]
) -> tuple[Float[Array, "b s c"], Int[Array, "b s c"]]:
    """Score and position of the best document token for each query token."""

    def one(document):
        tokens, mask = document
        scores = jnp.einsum("bsk,tk->bst", q, tokens, preferred_element_type=jnp.float32)
        scores = jnp.where(mask[None, None, :], scores, -jnp.inf)
        return jnp.max(scores, axis=-1), jnp.argmax(scores, axis=-1).astype(jnp.int32)

    best, position = lax.map(one, (d, d_mask))
    return jnp.moveaxis(best, 0, -1), jnp.moveaxis(position, 0, -1)


def _forward(q, d, d_mask):
    best, position = _best_matches(q, d, d_mask)
    return (best, position), (q, d, position)


def _backward(residuals, cotangents):
    q, d, position = residuals
    g = cotangents[0]
    width = d.shape[-1]

    def one(total, document):
        tokens, place, weight = document  # [t k], [b s], [b s]
        matched = jnp.take(tokens, place.reshape(-1), axis=0).reshape(*place.shape, width)
        total = total + weight[:, :, None] * matched.astype(jnp.float32)
        weighted = (weight[:, :, None] * q.astype(jnp.float32)).reshape(-1, width)
        return total, jnp.zeros(tokens.shape, jnp.float32).at[place.reshape(-1)].add(weighted)

    q_gradient, d_gradient = lax.scan(
        one, jnp.zeros(q.shape, jnp.float32), (d, jnp.moveaxis(position, -1, 0), jnp.moveaxis(g, -1, 0))
    )
    return q_gradient.astype(q.dtype), d_gradient.astype(d.dtype), None


_best_matches.defvjp(_forward, _backward)
