"""Gradient caching: a batch goes through a network in chunks, and the backward pass computes each chunk again.

Only the outputs of all rows are kept, the activations of one chunk (GradCache, Gao et al. 2021), and those of as many
rows as the memory has room for. What is computed from the outputs, a loss over the whole batch, knows nothing of it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxret.nn.dropout import row_numbers
from jaxret.runtime.mesh import BATCH


def in_chunks(apply: Callable[[Any, Any], Any], params: Any, inputs: Any, rows: int, kept: int = 0) -> Any:
    """`apply(params, inputs)`, for `rows` rows a device at a time.

    On a mesh each device goes through its own rows. Where only rows are split, the devices' shares of the gradient of
    the parameters are summed once, after the last chunk; where parameters are split too, the partitioner decides.

    Args:
      apply: from pytrees with n rows to pytrees with n rows; a row's outputs depend on that row alone.
      params: what the gradient is taken of.
      inputs: arrays [n ...], their rows split over the mesh as batches are.
      rows: the most of a chunk; all at once are not computed again.
      kept: so many rows of each device are not computed again either.
    """
    mesh = jax.sharding.get_abstract_mesh()
    parts = 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in BATCH)
    if parts == 1 or mesh.shape["data"] < mesh.size:
        return _in_chunks(apply, params, inputs, jnp.zeros((), jnp.int32), (rows, kept), parts)

    def local(params: Any, inputs: Any) -> Any:
        first = lax.axis_index("data") * len(jax.tree.leaves(inputs)[0])
        return _in_chunks(apply, params, inputs, first, (rows, kept), 1)

    split = PartitionSpec(BATCH)
    return jax.shard_map(local, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split, check_vma=False)(
        params, inputs
    )


def _in_chunks(apply: Callable, params: Any, inputs: Any, first: jax.Array, sizes: tuple[int, int], parts: int) -> Any:
    """Each of the `parts` parts that the batch has in chunks of `sizes`, see `in_chunks`; rows count from `first`."""
    (rows, kept), count = sizes, len(jax.tree.leaves(inputs)[0])
    own = count // parts
    rest = max(own - kept, 0) if own > rows else 0
    numbered = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), (first + jnp.arange(count), inputs))
    structure = None

    def one(params: Any, chunk: Any) -> list[jax.Array]:
        nonlocal structure
        numbers, inputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), chunk)
        with row_numbers(numbers):
            arrays, structure = jax.tree.flatten(apply(params, inputs))
        return [x.reshape(parts, -1, *x.shape[1:]) for x in arrays]

    pieces = [_again(one, params, jax.tree.map(lambda x: x[:, :rest], numbered), rows)] if rest else []
    if rest < own:
        pieces.append(one(params, jax.tree.map(lambda x: x[:, rest:], numbered)))
    arrays = [jnp.concatenate(found, axis=1) for found in zip(*pieces, strict=True)]
    return jax.tree.unflatten(structure, [x.reshape(count, *x.shape[2:]) for x in arrays])


def _again(one: Callable, params: Any, inputs: Any, rows: int) -> list[jax.Array]:
    """`one(params, inputs)` in even chunks of at most `rows` rows of each part, each computed again when needed.

    Two chunks at least: XLA dissolves a loop that runs once, and on CPUs then finds that it computes the same twice.

    Args:
      one: from arrays [parts rows ...] to arrays [parts rows ...].
      params: of all chunks.
      inputs: arrays [parts n ...].
      rows: the most of a chunk.
    """
    parts, count = jax.tree.leaves(inputs)[0].shape[:2]
    chunks = max(-(-count // rows), 2)
    each = -(-count // chunks)

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, chunks * each - count), *[(0, 0)] * (x.ndim - 2)], mode="edge")
        return jnp.moveaxis(x.reshape(parts, chunks, each, *x.shape[2:]), 1, 0)

    def joined(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(parts, chunks * each, *x.shape[3:])[:, :count]

    arrays = lax.map(functools.partial(jax.checkpoint(one), params), jax.tree.map(split, inputs))
    return [joined(x) for x in arrays]
