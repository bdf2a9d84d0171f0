"""Arrays from the host onto their devices and back, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from numpy.lib.array_utils import byte_bounds

Row = tuple[int | None, np.ndarray]


def placed(array: np.ndarray, dtype: Any, sharding: Sharding | None = None) -> jax.Array:
    """A copy of a host array on its devices: each gets its own slice of it, and the host keeps nothing.

    Args:
      array: any strides, any dtype; a memory-mapped one is read as far as this process's devices need it.
      dtype: of the result.
      sharding: where it goes; the first local device by default.
    """
    borrowed = _borrowed(array, dtype, sharding or _first_device())
    if borrowed.dtype != dtype:
        return borrowed.astype(dtype)
    pieces = [_owned(shard.data, array) for shard in borrowed.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, borrowed.sharding, pieces)


def _borrowed(array: np.ndarray, dtype: Any, sharding: Sharding) -> jax.Array:
    """The array in its own dtype or in `dtype`, the narrower: the wider one never exists on the host.

    A CPU device may borrow the memory of `array` instead of copying it, whatever `device_put` is told.
    """
    narrower = min(array.dtype, np.dtype(dtype), key=lambda dtype: dtype.itemsize)
    pieces = []
    for device, index in sharding.addressable_devices_indices_map(array.shape).items():
        piece = np.asarray(array[index], narrower)
        pieces.append(jax.block_until_ready(jax.device_put(piece, device)))
    return jax.make_array_from_single_device_arrays(array.shape, sharding, pieces)


def _owned(piece: jax.Array, array: np.ndarray) -> jax.Array:
    """The piece, or a copy of it where it lies in the host array's memory."""
    if next(iter(piece.devices())).platform != "cpu":
        return piece
    first, end = byte_bounds(array)
    return jnp.copy(piece) if first <= piece.unsafe_buffer_pointer() < end else piece


def filled(like: jax.ShapeDtypeStruct, rows: Iterable[Row], *, fill: float = 0.0, dtype: Any = None) -> jax.Array:
    """One parameter from rows `(layer, array)`, or from one row `(None, array)` that is the whole of it.

    A stacked parameter `[L ...]` is allocated on its devices and takes its layers in place, one after the other: the
    host holds one layer at once.

    Args:
      like: shape, dtype and, where it has one, sharding.
      rows: of the shape of `like`, without its first axis where there is a layer.
      fill: the value of layers that no row gives.
      dtype: of the result; that of `like` by default.
    """
    sharding, dtype = like.sharding or _first_device(), jnp.dtype(dtype or like.dtype)
    stack: jax.Array | None = None
    for layer, array in rows:
        if layer is None:
            return placed(array, dtype, sharding)
        if stack is None:
            stack = _constants(like.shape, dtype, fill, sharding)()
        row = _borrowed(array, dtype, _without_layers(sharding))
        stack = jax.block_until_ready(_row_update(sharding)(stack, row, layer))
    return _constants(like.shape, dtype, fill, sharding)() if stack is None else stack


def host_copy(leaf: Any, layer: int | None = None) -> np.ndarray:
    """A parameter, or one layer of a stacked one, on the host; no copy of it stays behind with `leaf`.

    Where devices of other processes hold a part, every process must call this, and each gets the whole.
    """
    if not isinstance(leaf, jax.Array):
        return np.asarray(leaf if layer is None else leaf[layer])
    if not leaf.is_fully_addressable:
        assert isinstance(leaf.sharding, NamedSharding)
        everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec())
        return np.asarray(_gathered(everywhere, layer is not None)(leaf, layer or 0))
    if layer is not None:
        return np.asarray(_row(leaf, layer))
    # np.asarray keeps the host's copy in the array object: a second object over the same buffers is thrown away.
    shards = [shard.data for shard in leaf.addressable_shards]
    return np.asarray(jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shards))


def _first_device() -> Sharding:
    return SingleDeviceSharding(jax.local_devices()[0])


def _without_layers(sharding: Sharding) -> Sharding:
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]), memory_kind=sharding.memory_kind)
    return sharding


@lru_cache
def _constants(shape: tuple[int, ...], dtype: Any, value: float, sharding: Sharding) -> Callable[[], jax.Array]:
    return jax.jit(lambda: jnp.full(shape, value, dtype), out_shardings=sharding)


_row = jax.jit(lambda stack, layer: lax.dynamic_index_in_dim(stack, layer, keepdims=False))


@lru_cache
def _row_update(sharding: Sharding) -> Callable[..., jax.Array]:
    return jax.jit(
        lambda stack, row, layer: lax.dynamic_update_index_in_dim(stack, row.astype(stack.dtype), layer, 0),
        donate_argnums=0,
        out_shardings=sharding,
    )


@lru_cache
def _gathered(sharding: Sharding, layered: bool) -> Callable[..., jax.Array]:
    return jax.jit(
        lambda x, layer: lax.dynamic_index_in_dim(x, layer, keepdims=False) if layered else x, out_shardings=sharding
    )
