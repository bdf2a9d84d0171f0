"""Gradient caching: a batch goes through a network in chunks, and the backward pass computes each chunk again.

Only the outputs of all rows are kept, and the activations of one chunk (GradCache, Gao et al. 2021). What is computed
from the outputs, a loss over the whole batch, knows nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxret.nn.dropout import row_numbers
from jaxret.runtime.mesh import BATCH


def in_chunks(apply: Callable[[Any, Any], Any], params: Any, inputs: Any, rows: int) -> Any:
    """`apply(params, inputs)`, for `rows` rows a device at a time.

    On a mesh each device goes through its own rows. Where only rows are split, the devices' shares of the gradient of
    the parameters are summed once, after the last chunk; where parameters are split too, the partitioner decides.

    Args:
      apply: from pytrees with n rows to pytrees with n rows; a row's outputs depend on that row alone.
      params: what the gradient is taken of.
      inputs: arrays [n ...], their rows split over the mesh as batches are.
      rows: of a chunk; the last chunk may be smaller.
    """
    mesh = jax.sharding.get_abstract_mesh()
    parts = 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in BATCH)
    if parts == 1 or mesh.shape["data"] < mesh.size:
        return _in_chunks(apply, params, inputs, jnp.zeros((), jnp.int32), rows, parts)

    def local(params: Any, inputs: Any) -> Any:
        first = lax.axis_index("data") * len(jax.tree.leaves(inputs)[0])
        return _in_chunks(apply, params, inputs, first, rows, 1)

    split = PartitionSpec(BATCH)
    return jax.shard_map(local, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split, check_vma=False)(
        params, inputs
    )


def _in_chunks(apply: Callable, params: Any, inputs: Any, first: jax.Array, rows: int, parts: int) -> Any:
    """Chunks with `rows` rows of each of the `parts` parts that the batch has; rows count from `first`."""
    count = len(jax.tree.leaves(inputs)[0])
    own = count // parts
    rows = min(rows, own)
    chunks = -(-own // rows)

    def split(x: jax.Array) -> jax.Array:
        x = x.reshape(parts, own, *x.shape[1:])
        x = jnp.pad(x, [(0, 0), (0, chunks * rows - own), *[(0, 0)] * (x.ndim - 2)], mode="edge")
        x = jnp.moveaxis(x.reshape(parts, chunks, rows, *x.shape[2:]), 1, 0)
        return x.reshape(chunks, parts * rows, *x.shape[3:])

    def joined(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x.reshape(chunks, parts, rows, *x.shape[2:]), 0, 1)
        return x.reshape(parts, chunks * rows, *x.shape[3:])[:, :own].reshape(count, *x.shape[3:])

    structure = None

    @jax.checkpoint
    def one(params: Any, numbers: jax.Array, inputs: Any) -> list[jax.Array]:
        nonlocal structure
        with row_numbers(numbers):
            arrays, structure = jax.tree.flatten(apply(params, inputs))
        return arrays

    chunked = jax.tree.map(split, (first + jnp.arange(count), inputs))
    arrays = lax.map(lambda chunk: one(params, *chunk), chunked)
    return jax.tree.unflatten(structure, map(joined, arrays))
