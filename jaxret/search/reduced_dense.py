"""Exact dense search with a scan in bfloat16: float32 scores of the few documents that may be among the best.

The scan keeps somewhat more than k documents of a query. Those are then scored in blocks of the same shape as all
documents would be, so with the same bits, and where the k-th of them is further above the best document that was not
kept than the scan may be wrong, no other can be among the best k. Queries without this proof are searched again in
float32. So the results have the bits of the search in float32.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jaxret.ops.block_scores import Rows, dense_scores
from jaxret.ops.reduced import lengths, score_error
from jaxret.ops.topk import EMPTY
from jaxret.search import query_batches as batching
from jaxret.search.device_memory import block_sizes
from jaxret.search.held_rows import BLOCKS, HeldRows, Shelf, Stored, Stretch, decoded
from jaxret.search.lanes import in_lanes
from jaxret.search.on_devices import DeviceSearch, lanes
from jaxret.search.reduced import ReducedSearch
from jaxret.search.room import aligned
from jaxret.search.store import StoredVectors
from jaxret.search.survivors import ROOM, Scores, Survivors
from jaxret.search.vectors import Vectors

PORTION = 512  # queries that are scanned together
UNIT = 8  # what their number is filled up to a multiple of
MEMBERS = 16  # of a group of documents, of which the best one's score is compared
TOGETHER = 2**21  # scores of a product, or one block's
AHEAD = 1  # products that are under way while others are compared

Started = tuple[jax.Array, jax.Array, np.ndarray]  # scores, the largest of each group, positions


class ReducedDense(ReducedSearch):
    """A dense search of a corpus that is on one CPU.

    Args:
      plain: as of `ReducedSearch`.
    """

    def __init__(self, plain: Callable[..., DeviceSearch]):
        shelf = Shelf()
        super().__init__(plain, shelf)
        shelf.sealed()
        self._stretches, self._held = shelf.stretches, cast(list[HeldRows], self._plain.held)
        self._starts = np.array([held.positions[0] for held in self._held])
        self._scan, self._scores = jax.jit(_scanned, static_argnames="size"), jax.jit(_scores)
        measured = jax.jit(_lengths)
        self._lengths = np.max([np.zeros(2), *(np.asarray(measured(held.stored)) for held in self._held)], axis=0)

    @staticmethod
    def kept(k: int) -> int:
        """As `ReducedSearch`."""
        return k + k // 4 + 32

    @staticmethod
    def workspace(k: int, mesh: Mesh, corpus: Vectors | StoredVectors) -> int:
        """As `ReducedSearch`."""
        survivors, documents = 3 * 8 * ROOM * ReducedDense.kept(k), block_sizes(mesh).documents
        return lanes(mesh) * (PORTION * (2 * 4 * documents + survivors) + 2 * documents * corpus.itemsize("dense"))

    def __call__(self, queries: Vectors, scored: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray]:
        """As `ReducedSearch`."""
        if not (len(queries) and self._held):
            return self._plain(queries, scored)
        self.repeated, count = 0, -(-len(queries) // PORTION)
        ends = [len(queries) * number // count for number in range(count + 1)]  # so that none has very few
        found = [self._portion(queries.part(*part), scored) for part in itertools.pairwise(ends)]
        scores, positions = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return scores, positions

    def _portion(self, queries: Vectors, scored: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray]:
        dense = queries.needed("dense")
        floors, candidates = self._scanned(dense, scored)
        scores, positions = self._rescored(queries, candidates)
        with np.errstate(all="ignore"):
            proven = scores[:, -1] > floors + score_error(dense, self._lengths)
        self.repeated += self._again(~proven, queries, scores, positions)
        return scores, positions

    def _scanned(self, queries: np.ndarray, scored: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray]:
        """A score that no other document is above in the scan, `[q]`, and the positions of those there, `[q n]`."""
        rows = -(-len(queries) // UNIT) * UNIT
        padded = queries[np.minimum(np.arange(rows), len(queries) - 1)]
        placed = jnp.asarray(padded.astype(jnp.bfloat16))

        size = len(self._held[0].positions)
        size *= min(BLOCKS, max(1, TOGETHER // (rows * size)))
        parts = [(each, start) for each in self._stretches for start in range(0, len(each.positions), size)]
        started, survivors = (self._started(placed, *part, size) for part in parts), Survivors(rows, self.kept(self._k))
        under_way = deque(itertools.islice(started, AHEAD))
        while under_way:
            under_way.extend(itertools.islice(started, 1))
            scores = _compared(*under_way.popleft())
            survivors.add(scores)
            scored(len(queries), int(np.count_nonzero(scores.positions != EMPTY)))
        reached, positions = survivors.best()
        return reached[: len(queries)], positions[: len(queries)]

    def _started(self, queries: jax.Array, stretch: Stretch, start: int, size: int) -> Started:
        """Scores of a part of a stretch, under way, and its positions."""
        positions = stretch.positions[start : start + size]
        return *self._scan(queries, stretch.scanned, start, size=len(positions)), positions

    def _rescored(self, queries: Vectors, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best k of each query's candidates, their scores in float32."""
        portions = list(batching.query_batches("dense", queries))
        batches = [jax.device_put(batch) for portion, _ in portions for batch in portion]
        chosen = [rows for _, portion in portions for rows in portion]
        scores = np.empty((len(queries), self._k), np.float32)
        positions = np.empty((len(queries), self._k), np.int32)

        def lane(numbers: Iterator[int]) -> None:
            block = jax.tree.map(lambda x: aligned(x.shape, x.dtype), self._held[0].stored)
            for number in numbers:
                rows = chosen[number]
                scores[rows], positions[rows] = self._best(batches[number], candidates[rows], block)

        in_lanes(self._lanes, (partial(int, number) for number in range(len(batches))), lane)
        return scores, positions

    def _best(self, batch: jax.Array, candidates: np.ndarray, block: Stored) -> tuple[np.ndarray, np.ndarray]:
        """The best k of some queries' candidates, `[q n]`; the batch may hold more rows. The block is written over."""
        documents = np.unique(candidates)
        documents = documents[documents != EMPTY]
        if not len(documents):  # all scores overflowed
            return np.full((len(candidates), self._k), -np.inf, np.float32), candidates[:, : self._k]
        parts = [np.asarray(self._scores(batch, part)) for part in self._chosen(documents, block)]
        columns = np.minimum(np.searchsorted(documents, candidates), len(documents) - 1)
        found = np.take_along_axis(np.concatenate(parts, axis=1)[: len(candidates)], columns, axis=1)
        found = np.where(candidates == EMPTY, -np.inf, np.where(found == 0, np.float32(0), found))  # no -0.0
        order = np.lexsort((candidates, -found), axis=-1)[:, : self._k]
        return np.take_along_axis(found, order, axis=1), np.take_along_axis(candidates, order, axis=1)

    def _chosen(self, documents: np.ndarray, block: Stored) -> Iterator[Stored]:
        """Some documents, ascending, in one block of the corpus's shape after another."""
        size = len(self._held[0].positions)
        for start in range(0, len(documents), size):
            chosen = documents[start : start + size]
            ends = [*np.searchsorted(chosen, self._starts), len(chosen)]
            for held, begin, (first, last) in zip(self._held, self._starts, itertools.pairwise(ends), strict=True):
                if first < last:
                    rows = chosen[first:last] - begin
                    for to, of in zip(jax.tree.leaves(block), jax.tree.leaves(held.stored), strict=True):
                        np.take(of, rows, axis=0, out=to[first:last], mode="clip")
            yield block


def _compared(every: jax.Array, largest: jax.Array, positions: np.ndarray) -> Scores:
    scores = Scores(np.asarray(every), np.asarray(largest), positions.reshape(every.shape[1:]))
    if np.any(positions == EMPTY):
        real = np.where(scores.positions == EMPTY, np.float32(-np.inf), scores.every)
        return Scores(real, real.max(axis=-1), scores.positions)
    return scores


def _scanned(queries: jax.Array, rows: Rows, start: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Scores `[b g m]` of some rows, and the largest of each group, `[b g]`."""
    if size < len(rows.vectors):
        rows = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size), rows)
    scores = dense_scores(queries, rows)
    groups = scores.reshape(len(queries), -1, MEMBERS if size % MEMBERS == 0 else 1)
    return groups, jnp.max(groups, axis=-1)


def _scores(queries: jax.Array, stored: Stored) -> jax.Array:
    return dense_scores(queries, decoded(stored))


def _lengths(stored: Stored) -> jax.Array:
    return lengths(decoded(stored))
