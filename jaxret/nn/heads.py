"""Three heads on one body: dense, lexical, multi-vector."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxret.nn.layers import Dense, parameter
from jaxret.ops.vectors import POOLINGS, unit


class DenseHead(nn.Module):
    """One unit vector a text: pooled states, projected (BGE-M3, section 3.2, when `pooling` is cls)."""

    width: int
    pooling: str

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b e"]:
        """Pools, projects, normalises."""
        pooled = POOLINGS[self.pooling](x, mask)
        return unit(Dense(self.width, ("width", "projection"), name="projection")(pooled))


class LexicalHead(nn.Module):
    """One non-negative weight a token, `relu(w . h + b)` (BGE-M3, section 3.2); 0 where `mask` is False.

    The bias starts at one, so that an untrained head weighs every token alike and no weight is born dead.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b l"]:
        """Weighs the tokens, in float32."""
        bias = parameter(self, "bias", nn.initializers.ones, (None,), (1,))
        weights = Dense(1, ("width", None), name="weight")(x)[:, :, 0].astype(jnp.float32) + bias.astype(jnp.float32)[0]
        return jnp.where(mask, nn.relu(weights), 0.0)


class MultiVectorHead(nn.Module):
    """One unit vector a token: a linear map without bias (ColBERT, section 3.2)."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l k"]:
        """Projects and normalises."""
        return unit(Dense(self.width, ("width", "projection"), name="projection")(x))
