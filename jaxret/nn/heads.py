"""Heads on one body: dense, lexical, multi-vector, and a language model's head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxret.errors import InputError
from jaxret.nn.block import norm
from jaxret.nn.config import EncoderConfig
from jaxret.nn.layers import Dense, parameter
from jaxret.nn.placement import TABLE, in_use
from jaxret.ops.activations import ACTIVATIONS
from jaxret.ops.vectors import POOLINGS, unit


@dataclass(frozen=True)
class Projection:
    """One dense layer behind the body.

    Attributes:
      features: its width.
      use_bias: whether it has a bias.
      activation: what follows it.
      residual: add what came in, through a linear map of its own where the widths differ.
    """

    features: int
    use_bias: bool = False
    activation: str = "identity"
    residual: bool = False

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            fix = f"Choose one of {', '.join(ACTIVATIONS)}."
            raise InputError("Projection.activation", f"unknown {self.activation!r}", fix)


def projections(layers: Sequence[int | Projection]) -> tuple[Projection, ...]:
    """The layers, a plain width as a layer of that width without bias."""
    return tuple(Projection(layer) if isinstance(layer, int) else layer for layer in layers)


@dataclass(frozen=True)
class LMHeadConfig:
    """A language model's head: dense, activation and norm (`transform`), then a product with the vocabulary.

    The norm is the encoder's kind. A `tied` product uses the token embeddings; `bias` is one number a token.
    """

    transform: bool = True
    transform_bias: bool = True
    activation: str = "gelu"
    bias: bool = True
    tied: bool = True


def _projected(x: Array, projections: tuple[Projection, ...]) -> Array:
    axes = ("width", "projection")
    for number, layer in enumerate(projections):
        y = ACTIVATIONS[layer.activation](Dense(layer.features, axes, layer.use_bias, name=f"projection_{number}")(x))
        if layer.residual:
            y += x if x.shape[-1] == layer.features else Dense(layer.features, axes, name=f"residual_{number}")(x)
        x = y
    return x


class DenseHead(nn.Module):
    """One vector a text: pooled states, projected, cut to `truncate` numbers (0: all), of length one if `normalize`.

    Several poolings stand one after the other in one vector. The cut is Matryoshka's (Kusupati et al. 2022, section 3):
    first components, normalised again.
    """

    poolings: tuple[str, ...]
    projections: tuple[Projection, ...]
    truncate: int = 0
    normalize: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b e"]:
        """Pools, projects, cuts, normalises."""
        pooled = jnp.concatenate([POOLINGS[pooling](x, mask) for pooling in self.poolings], axis=-1)
        vector = _projected(pooled, self.projections)
        vector = vector[:, : self.truncate] if self.truncate else vector
        return unit(vector) if self.normalize else vector


class LexicalHead(nn.Module):
    """One non-negative weight a token, `relu(w . h + b)` (BGE-M3, section 3.2); 0 where `mask` is False.

    The bias starts at one, so that an untrained head weighs every token alike and no weight is born dead.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b l"]:
        """Weighs the tokens, in float32."""
        weights = Dense(1, ("width", None), use_bias=True, bias_init=nn.initializers.ones, name="weight")(x)
        return jnp.where(mask, nn.relu(weights[:, :, 0].astype(jnp.float32)), 0.0)


class LMHead(nn.Module):
    """The vectors and the table whose products are a language model's logits."""

    config: LMHeadConfig
    body: EncoderConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l d"], table: Float[Array, "v d"]
    ) -> tuple[Float[Array, "b l d"], Float[Array, "v d"], Float[Array, " v"]]:
        """Transformed states, output table and bias; the logits are `states @ table.T + bias`."""
        config, (size, width) = self.config, table.shape
        if config.transform:
            x = Dense(width, ("width", None), config.transform_bias, name="transform")(x)
            x = norm(self.body, "norm")(ACTIVATIONS[config.activation](x))
        if not config.tied:
            own = parameter(self, "decoder", nn.initializers.normal(0.02), TABLE, (size, width))
            table = in_use(own.astype(x.dtype), TABLE)
        bias = jnp.zeros(size, x.dtype)
        if config.bias:
            bias = parameter(self, "bias", nn.initializers.zeros, ("vocab",), (size,))
        return x, table.astype(x.dtype), bias.astype(x.dtype)


class MultiVectorHead(nn.Module):
    """One unit vector a token: linear maps (ColBERT, section 3.2)."""

    projections: tuple[Projection, ...]
    normalize: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l k"]:
        """Projects and normalises."""
        vectors = _projected(x, self.projections)
        return unit(vectors) if self.normalize else vectors
