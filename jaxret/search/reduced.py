"""Exact dense search with a scan in bfloat16: float32 scores of the few documents that may be among the best.

The scan keeps somewhat more than k documents of a query. Those are then scored in blocks of the same shape as all
documents would be, so with the same bits, and where the k-th of them is further above the best document that was not
kept than the scan may be wrong, no other can be among the best k. Queries without this proof are searched again in
float32. So the results have the bits of the search in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxret.ops.block_scores import Rows, dense_scores
from jaxret.ops.reduced import lengths, score_error
from jaxret.ops.topk import EMPTY
from jaxret.runtime.precision import multiplies_bfloat16
from jaxret.search import query_batches as batching
from jaxret.search.blocks import Group
from jaxret.search.lanes import in_lanes
from jaxret.search.survivors import ROOM, Survivors
from jaxret.search.vectors import Vectors

PORTION = 512  # queries that are scanned together
UNIT = 64
WORTH = 8  # times the documents that are kept: a corpus that it is worth for


def kept_documents(k: int) -> int:
    """How many documents a scan keeps for each query."""
    return k + k // 4 + 32


def workspace(k: int, documents: int, width: int, lanes: int) -> int:
    """Bytes that a search needs besides the corpus.

    Args:
      k: results a query.
      documents: of a block.
      width: bytes of a document.
      lanes: threads.
    """
    survivors = 3 * 8 * ROOM * kept_documents(k)
    return lanes * (PORTION * (2 * 4 * documents + survivors) + 2 * documents * width)


def pays(k: int, documents: int) -> bool:
    """Whether such a scan is faster than one in float32."""
    return multiplies_bfloat16() and WORTH * kept_documents(k) <= documents


class ReducedSearch:
    """A dense search of a corpus that is on one CPU.

    Args:
      held: the corpus in blocks, ascending.
      k: results a query.
      lanes: threads.
      plain: `(queries, scored) -> (scores, positions)`, the search in float32.

    Attributes:
      repeated: queries of the last call that were searched again.
    """

    def __init__(
        self,
        held: Sequence[Group],
        k: int,
        lanes: int,
        plain: Callable[..., tuple[np.ndarray, np.ndarray]],
    ):
        self._held, self._k, self._lanes, self._plain = held, k, lanes, plain
        self._blocks = [jax.tree.map(lambda x: np.asarray(x)[0], group.block) for group in held]
        self._positions = [np.asarray(group.positions)[0] for group in held]
        self._starts = np.array([positions[0] for positions in self._positions])
        self._scores, measured = jax.jit(_scores), jax.jit(_lengths)
        self._lengths = np.max([np.asarray(measured(group.block)) for group in held], axis=0)
        self.repeated = 0

    def __call__(self, queries: Vectors, scored: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray]:
        """Scores and positions of the best k documents for each query.

        Args:
          queries: their vectors.
          scored: hears of how many queries and documents more.
        """
        if len(queries) <= batching.BATCH[0]:
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
        again = np.flatnonzero(~proven)
        self.repeated += len(again)
        if len(again):
            # Batches of few queries would have another shape.
            rows = np.resize(again, max(len(again), batching.BATCH[0] + 1))
            found = self._plain(queries.chosen(rows), lambda *_: None)
            scores[again], positions[again] = (part[: len(again)] for part in found)
        return scores, positions

    def _scanned(self, queries: np.ndarray, scored: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray]:
        """A score that no other document is above in the scan, `[q]`, and the positions of those there, `[q n]`."""
        kept, rows = kept_documents(self._k), -(-len(queries) // UNIT) * UNIT
        padded = queries[np.minimum(np.arange(rows), len(queries) - 1)]
        placed = jnp.asarray(padded.astype(jnp.bfloat16))
        floors = np.full(rows, -np.inf, np.float32)

        def lane(blocks: Iterator[int]) -> Survivors:
            best = Survivors(floors, kept)
            for number in blocks:
                positions = self._positions[number]
                best.add(np.asarray(self._scores(placed, self._held[number].block)), positions)
                scored(len(queries), int(np.count_nonzero(positions != EMPTY)))
            return best

        numbers = (partial(int, number) for number in range(len(self._held)))
        first, *others = in_lanes(self._lanes, numbers, lane)
        reached, positions = first.joined(others)
        return reached[: len(queries)], positions[: len(queries)]

    def _rescored(self, queries: Vectors, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best k of each query's candidates, their scores in float32."""
        portions = list(batching.query_batches("dense", queries, 0))
        batches = [jax.device_put(batch) for portion, _ in portions for batch in portion]
        starts = np.cumsum([0, *(count for _, counts in portions for count in counts)])
        scores = np.empty((len(queries), self._k), np.float32)
        positions = np.empty((len(queries), self._k), np.int32)

        def lane(numbers: Iterator[int]) -> None:
            for number in numbers:
                rows = slice(starts[number], starts[number + 1])
                scores[rows], positions[rows] = self._best(batches[number], candidates[rows])

        in_lanes(self._lanes, (partial(int, number) for number in range(len(batches))), lane)
        return scores, positions

    def _best(self, batch: jax.Array, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best k of some queries' candidates, `[q n]`; the batch may hold more rows."""
        documents = np.unique(candidates)
        documents = documents[documents != EMPTY]
        parts = [np.asarray(self._scores(batch, block)) for block in self._chosen(documents)]
        columns = np.minimum(np.searchsorted(documents, candidates), len(documents) - 1)
        found = np.take_along_axis(np.concatenate(parts, axis=1)[: len(candidates)], columns, axis=1)
        found = np.where(candidates == EMPTY, -np.inf, np.where(found == 0, np.float32(0), found))  # no -0.0
        order = np.lexsort((candidates, -found), axis=-1)[:, : self._k]
        return np.take_along_axis(found, order, axis=1), np.take_along_axis(candidates, order, axis=1)

    def _chosen(self, documents: np.ndarray) -> Iterator[Rows]:
        """Some documents, ascending, in blocks of the corpus's shape."""
        size = len(self._positions[0])
        for start in range(0, len(documents), size):
            chosen = documents[start : start + size]
            ends = [*np.searchsorted(chosen, self._starts), len(chosen)]
            block = jax.tree.map(lambda x: np.zeros((1, *x.shape), x.dtype), self._blocks[0])
            for number, (first, last) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
                if first < last:
                    rows = chosen[first:last] - self._starts[number]
                    for to, of in zip(jax.tree.leaves(block), jax.tree.leaves(self._blocks[number]), strict=True):
                        to[0, first:last] = of[rows]
            yield block


def _scores(queries: jax.Array, block: Rows) -> jax.Array:
    return dense_scores(queries, jax.tree.map(lambda x: x[0], block))


def _lengths(block: Rows) -> jax.Array:
    return lengths(jax.tree.map(lambda x: x[0], block))
