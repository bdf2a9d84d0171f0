"""float32 numbers in two halves of 16 bits: the nearest bfloat16, and what gives the number back to the last bit."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32


class Halves(NamedTuple):
    """Any float32 array, of jax or numpy.

    Attributes:
      high: bfloat16, the nearest; halfway it is the one away from zero.
      low: int16, how many steps of float32 the number is above it.
    """

    high: Any
    low: Any


def halved(x: Float32[np.ndarray, "*n"]) -> Halves:
    """Both halves; numbers that round to infinity, and those that are not finite, come back as they were too."""
    bits = x.view(np.uint32)
    high = ((bits + np.uint32(0x8000)) >> np.uint32(16)).astype(np.uint16)
    return Halves(high.view(jnp.bfloat16), bits.astype(np.uint16).view(np.int16))


def restored(x: Halves) -> Float32[Array, "*n"]:
    """The numbers."""
    high = lax.bitcast_convert_type(x.high, jnp.uint16).astype(jnp.uint32) << 16
    return lax.bitcast_convert_type(high + x.low.astype(jnp.uint32), jnp.float32)
