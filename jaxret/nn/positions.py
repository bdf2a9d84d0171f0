"""Rotary positions, and the rows of learned position tables."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


def rotary_tables(
    length: int, width: int, base: float, scaling: tuple[float, ...] = ()
) -> tuple[Float[Array, "l w"], Float[Array, "l w"]]:
    """Cosines and sines of the rotary positions 0 to length-1 (RoFormer, Su et al. 2021, eq. 34), halves repeated.

    `scaling` is `EncoderConfig.rope_scaling`.
    """
    frequencies = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    frequencies = _stretched(frequencies, *scaling) if scaling else frequencies
    angles = jnp.arange(length, dtype=jnp.float32)[:, None] * frequencies[None, :]
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def _stretched(frequencies: Array, factor: float, low: float, high: float, original: float) -> Array:
    """Rotations of more than `original / low` positions are slowed by `factor`, a ramp leads to those that are not."""
    turns = original * frequencies / (2 * jnp.pi)
    kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / factor)


def rotated(
    x: Float[Array, "b h l w"], cosines: Float[Array, "l w"], sines: Float[Array, "l w"]
) -> Float[Array, "b h l w"]:
    """Heads turned by their positions, first half against second half."""
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    return (x * cosines[None, None] + turned * sines[None, None]).astype(x.dtype)


def segment_mask(mask: Bool[Array, "b l"], segments: Int[Array, "b l"]) -> Bool[Array, "b l l"]:
    """Which position may attend to which where several texts stand in a row: to the kept ones of its own text."""
    return (segments[:, :, None] == segments[:, None, :]) & mask[:, None, :]


def position_rows(
    mask: Bool[Array, "b l"], offset: int, size: int, segments: Int[Array, "b l"] | None = None
) -> Int[Array, "b l"]:
    """The row of a learned table for each position, at most `size - 1`.

    Args:
      mask: real positions.
      offset: 0 counts every position from 0 (BERT); n > 0 counts the real ones alone, from n on, and padding has
        row n - 1, as RoBERTa does with n = pad id + 1.
      size: rows of the table.
      segments: numbers of the texts in each row, one after another; each is counted on its own.
    """
    places = jnp.broadcast_to(jnp.arange(mask.shape[1])[None, :], mask.shape)
    rows = jnp.cumsum(mask, axis=1) if offset else places
    if segments is not None:
        begins = jnp.diff(segments, axis=1, prepend=segments[:, :1]) != 0
        begin = lax.cummax(jnp.where(begins, places, 0), axis=1)
        rows = rows - jnp.take_along_axis(rows - mask if offset else rows, begin, axis=1)
    rows = jnp.where(mask, rows + (offset - 1), offset - 1) if offset else rows
    return jnp.minimum(rows, size - 1)
