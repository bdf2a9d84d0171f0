"""Self-attention with rotary positions and a padding mask."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxret.nn.layers import RESIDUAL_INIT, Dense


def rotary_tables(length: int, width: int, base: float) -> tuple[Float[Array, "l w"], Float[Array, "l w"]]:
    """Cosines and sines of the rotary positions 0 to length-1 (RoFormer, Su et al. 2021, eq. 34), halves repeated."""
    frequencies = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angles = jnp.arange(length, dtype=jnp.float32)[:, None] * frequencies[None, :]
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def rotated(
    x: Float[Array, "b h l w"], cosines: Float[Array, "l w"], sines: Float[Array, "l w"]
) -> Float[Array, "b h l w"]:
    """Heads turned by their positions, first half against second half."""
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    return (x * cosines[None, None] + turned * sines[None, None]).astype(x.dtype)


def attended(
    q: Float[Array, "b h l w"], k: Float[Array, "b h m w"], v: Float[Array, "b h m w"], mask: Bool[Array, "b m"]
) -> Float[Array, "b h l w"]:
    """Softmax attention over kept keys; scores and softmax in float32, the division after the value product."""
    scores = jnp.einsum("bhlw,bhmw->bhlm", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    mixed = jnp.einsum("bhlm,bhmw->bhlw", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (mixed / total).astype(q.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention with rotary positions; masked keys are never attended."""

    num_heads: int
    rope_base: float

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        """Attends."""
        b, length, d = x.shape
        qkv = Dense(3 * d, ("width", "heads"), name="qkv")(x).reshape(b, length, 3, self.num_heads, d // self.num_heads)
        q, k, v = jnp.moveaxis(qkv, (2, 3), (0, 2))
        tables = rotary_tables(length, d // self.num_heads, self.rope_base)
        mixed = attended(rotated(q, *tables), rotated(k, *tables), v, mask)
        return Dense(d, ("heads", "width"), kernel_init=RESIDUAL_INIT, name="output")(
            jnp.moveaxis(mixed, 1, 2).reshape(b, length, d)
        )
