"""The projection of contrastive context prediction, with the batch normalisation that is given to it."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxret.nn.layers import Dense, parameter
from jaxret.ops.masked import precise
from jaxret.ops.vectors import unit

EPSILON = 1e-5


class Statistics(NamedTuple):
    """Mean and variance of each number of a batch's vectors, both `[k]`."""

    mean: Float[Array, " k"]
    variance: Float[Array, " k"]


class HeadStatistics(NamedTuple):
    """Those of both normalisations of a `ContextHead`."""

    hidden: Statistics
    output: Statistics


def standard_statistics(hidden: int, features: int) -> HeadStatistics:
    """Mean 0 and variance 1, which running statistics start from."""
    return HeadStatistics(*(Statistics(jnp.zeros(width), jnp.ones(width)) for width in (hidden, features)))


def batch_statistics(x: Float[Array, "b k"]) -> Statistics:
    """Of all rows of the global batch, in float32; the variance is over `b`, not `b - 1`."""
    x = precise(x)
    mean = jnp.mean(x, axis=0)
    return Statistics(mean, jnp.mean(jnp.square(x - mean[None]), axis=0))


def normalized(x: Float[Array, "b k"], by: Statistics) -> Float[Array, "b k"]:
    """`(x - mean) / sqrt(variance + epsilon)` (Ioffe and Szegedy 2015, algorithm 1), in the dtype of `x`."""
    wide = (precise(x) - by.mean[None]) * jax.lax.rsqrt(by.variance + EPSILON)[None]
    return wide.astype(x.dtype)


class ContextHead(nn.Module):
    """Linear, batch norm, ReLU, linear, batch norm without affine, length one (CCP, Wu et al. 2022).

    Attributes:
      hidden: width of the first map.
      features: width of the vectors.
      normalize: whether there is batch normalisation; the first one's scale and bias are there all the same.
    """

    hidden: int
    features: int
    normalize: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "b d"], running: HeadStatistics, by_batch: Bool[Array, ""]
    ) -> tuple[Float[Array, "b k"], HeadStatistics]:
        """The vectors, in float32, and the statistics of this batch.

        Args:
          x: one vector a text.
          running: statistics of earlier batches.
          by_batch: normalise by this batch's statistics, through which gradients flow, and not by the running ones.
        """
        axes = ("width", "projection")
        y, first = self._normalized(Dense(self.hidden, axes, name="first")(x), running.hidden, by_batch)
        scale = parameter(self, "scale", nn.initializers.ones, ("norm",), (self.hidden,)).astype(y.dtype)
        bias = parameter(self, "bias", nn.initializers.zeros, ("norm",), (self.hidden,)).astype(y.dtype)
        y = jax.nn.relu(y * scale[None] + bias[None])
        y, second = self._normalized(Dense(self.features, axes, name="second")(y), running.output, by_batch)
        return unit(precise(y)), HeadStatistics(first, second)

    def _normalized(self, y: Array, running: Statistics, by_batch: Array) -> tuple[Array, Statistics]:
        own = batch_statistics(y)
        by: Statistics = jax.tree.map(lambda mine, theirs: jnp.where(by_batch, mine, theirs), own, running)
        return (normalized(y, by) if self.normalize else y), own
