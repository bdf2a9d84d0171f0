"""Compressed search over a mesh."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from jaxret.errors import InputError
from jaxret.ops.compressed_maxsim import Codebook
from jaxret.ops.residuals import plane_order
from jaxret.ops.topk import TopK
from jaxret.runtime.mesh import AXES
from jaxret.search.budget import check_room
from jaxret.search.plaid.index import PlaidIndex
from jaxret.search.plaid.shards import Shard, held_bytes, shards
from jaxret.search.plaid.stages import Pruning, candidates, num_listed, probed_cells, pruned, published_pruning, ranked
from jaxret.search.vectors import Vectors, check_finite

QUERY_BATCH = 16
SMALLEST_CAPACITY = 256

SPREAD, WHOLE = PartitionSpec(AXES), PartitionSpec()


class PlaidSearch:
    """A compressed corpus on the mesh.

    Args:
      index: the corpus.
      mesh: the devices that share it.
      k: results a query.
      pruning: how much of it a query looks at; by default the reference's settings for `k`. With `UNPRUNED` the
        results are those of MaxSim with all decompressed vectors.
      memory_budget_gb: what this process may hold, in GB (10^9 bytes). A compressed corpus stays in memory.

    Raises:
      InputError: the corpus does not fit the budget, k is larger than the corpus or than the number of documents that
        the pruning leaves, or the pruning's settings are out of range.
    """

    def __init__(
        self,
        index: PlaidIndex,
        mesh: Mesh,
        k: int,
        pruning: Pruning | None = None,
        memory_budget_gb: float | int | None = None,
    ):
        if not 1 <= k <= len(index):
            raise InputError("k", f"{k} results of a corpus of {len(index)} documents", f"Give 1 to {len(index)}.")
        self.k, self.pruning = k, published_pruning(k) if pruning is None else pruning
        if self.pruning.ncells < 0:
            raise InputError("ncells", f"{self.pruning.ncells}", "Give 1 or more, or 0 for a search without pruning.")
        if self.pruning.ncells and self.pruning.ndocs < 4 * k:
            problem = f"{self.pruning.ndocs} documents pass the first cut, and a fourth of them is to hold {k} results"
            raise InputError("ndocs", problem, f"Give {4 * k} or more.")
        if memory_budget_gb is not None:
            check_room(memory_budget_gb, held_bytes(index), "build an index with fewer bits or pooled")
        self._mesh, self._nbits = mesh, index.codec.nbits
        # A CPU's cores take a query each: the stages of one are too small to divide.
        alone = mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"
        self._batch, self._lanes = (1, len(os.sched_getaffinity(0))) if alone else (QUERY_BATCH, 1)
        spread = NamedSharding(mesh, SPREAD)
        self._whole = NamedSharding(mesh, WHOLE)
        self._shards = jax.device_put(shards(index, mesh.devices.size), spread)
        centroids = plane_order(jnp.asarray(index.codec.centroids), self._nbits)
        self._codebook = jax.device_put(Codebook(centroids, jnp.asarray(index.codec.weights)), self._whole)

    def __call__(
        self, queries: Vectors, progress: Callable[[int], None] | None = None
    ) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
        """Scores and positions of the best k documents for each query, best first; ties by ascending position.

        A document without tokens is never found. Where fewer than k are found, the last slots have the score -inf and
        the position `jaxret.ops.topk.EMPTY`. Raises InputError where a query is not finite.
        """
        check_finite(queries, "query")
        found: list[list[np.ndarray]] = [[np.zeros((0, self.k), np.float32), np.zeros((0, self.k), np.int32)]]
        starts = range(0, len(queries), self._batch)
        with ThreadPoolExecutor(self._lanes) as pool:
            for scores, positions in pool.map(lambda start: self._batch_results(queries, start), starts):
                found.append([scores, positions])
                if progress:
                    progress(len(scores))
        scores, positions = zip(*found, strict=True)
        return np.concatenate(scores), np.concatenate(positions)

    def _batch_results(self, queries: Vectors, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and positions of one batch."""
        count = min(self._batch, len(queries) - start)
        best = self._best(*self._query_batch(queries, start, count))
        return np.asarray(best.scores)[:count], np.asarray(best.positions)[:count]

    def _best(self, q: Float[Array, "b s k"], mask: Bool[Array, "b s"]) -> TopK:
        """One batch's results."""
        if not self.pruning.ncells:
            return _exhaustive(self._mesh, self.k)(q, self._shards, self._codebook)
        table, cells, listed = _probing(self._mesh, self.pruning.ncells)(q, mask, self._shards, self._codebook)
        capacity = max(SMALLEST_CAPACITY, 1 << (int(np.max(listed)) - 1).bit_length())
        program = _pruning(self._mesh, self.k, self.pruning, capacity)
        return program(q, mask, table, cells, self._shards, self._codebook)

    def _query_batch(self, queries: Vectors, start: int, count: int) -> tuple[Array, Array]:
        """Vectors and mask of a fixed shape; padding is zeros."""
        tokens = queries.needed("tokens")
        rows = np.arange(start, start + count)
        length = max(8, -(-int(tokens.lengths.max()) // 8) * 8)
        mask = np.zeros((self._batch, length), bool)
        mask[:count] = np.arange(length)[None, :] < tokens.lengths[rows][:, None]
        q = np.zeros((self._batch, length, tokens.values.shape[1]), np.float32)
        q[:count] = np.where(mask[:count, :, None], tokens.padded(rows, length), 0)
        q, mask = jax.device_put((q, mask), self._whole)
        return plane_order(q, self._nbits), mask


def _own(shards: Shard) -> Shard:
    """A device's own shard, out of the stack of one that it is handed."""
    return jax.tree.map(lambda x: x[0], shards)


@lru_cache(maxsize=16)
def _probing(mesh: Mesh, ncells: int) -> Callable[..., tuple[Array, Array, Array]]:
    """A jitted `(q, mask, shards, codebook) -> (table, cells, number of entries in the cells' lists)`."""

    def local(q: Any, mask: Any, shards: Shard, codebook: Codebook) -> tuple[Array, Array, Array]:
        table, cells = probed_cells(q, mask, codebook.centroids, ncells)
        return table, cells, num_listed(cells, _own(shards))[None, :]

    ins, outs = (WHOLE, WHOLE, SPREAD, WHOLE), (WHOLE, WHOLE, SPREAD)
    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=ins, out_specs=outs, check_vma=False))


@lru_cache(maxsize=64)
def _pruning(mesh: Mesh, k: int, pruning: Pruning, capacity: int) -> Callable[..., TopK]:
    """A jitted `(q, mask, table, cells, shards, codebook) -> TopK` for so many entries in the cells' lists."""

    def local(q: Any, mask: Any, table: Any, cells: Any, shards: Shard, codebook: Codebook) -> TopK:
        shard = _own(shards)
        found = candidates(cells, shard, capacity)
        found = pruned(table, mask, shard, found, pruning, AXES)
        return ranked(q, shard, codebook, found, k, AXES)

    ins = (WHOLE, WHOLE, WHOLE, WHOLE, SPREAD, WHOLE)
    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=ins, out_specs=WHOLE, check_vma=False))


@lru_cache(maxsize=16)
def _exhaustive(mesh: Mesh, k: int) -> Callable[..., TopK]:
    """A jitted `(q, shards, codebook) -> TopK` of all documents."""

    def local(q: Any, shards: Shard, codebook: Codebook) -> TopK:
        shard = _own(shards)
        everything = jnp.arange(shard.lengths.shape[0], dtype=jnp.int32)
        found = jnp.broadcast_to(everything[None, :], (q.shape[0], len(everything)))
        return ranked(q, shard, codebook, found, k, AXES)

    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(WHOLE, SPREAD, WHOLE), out_specs=WHOLE, check_vma=False))
