"""Exact MaxSim with a scan in bfloat16: float32 scores of the few documents that may be among the best.

The scan keeps some times k documents of a query, best first. The first k of them are scored in float32, in tiles of
the shape that all documents would be in, so with the same bits; then those that the scan, for all that it may be wrong,
does not put below these. Where the last document that was kept is below these for certain, so are all others. Queries
without this proof are searched again in float32. So the results have the bits of the search in float32.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxret.ops.block_scores import QueryTokens, Tiles, multi_vector_scores
from jaxret.ops.reduced import maxsim_error, token_lengths
from jaxret.ops.topk import EMPTY
from jaxret.search.blocks import tile_documents
from jaxret.search.lanes import CompiledOnce, in_lanes
from jaxret.search.on_devices import DeviceSearch, lanes
from jaxret.search.query_batches import query_batches
from jaxret.search.reduced import ReducedSearch
from jaxret.search.room import Room
from jaxret.search.store import StoredVectors
from jaxret.search.vectors import Vectors

TILE_TOKENS = (1024, 4096)  # of a tile of a query's documents, about, where they are few and where they are many
LENGTHS = 16  # of documents, about, that a lane has room for


class ReducedMaxSim(ReducedSearch):
    """A MaxSim search of a corpus that is on one CPU.

    Where most queries of a call lack the proof, the corpus is searched in float32 from then on.

    Args:
      plain: as of `ReducedSearch`.

    Attributes:
      rescored: documents of the last call that were scored in float32, over all queries.
    """

    def __init__(self, plain: Callable[..., DeviceSearch]):
        super().__init__(plain)
        self._scan = self._plain.variant(self.kept(self._k), jnp.dtype("bfloat16"))
        held = [kept() for kept in self._plain.held or []]
        self._documents = _Documents(
            [group.block for group in held], [np.asarray(group.positions)[0] for group in held]
        )
        measured = jax.jit(token_lengths)
        self._lengths = np.max([np.zeros(2), *(np.asarray(measured(group.block)) for group in held)], axis=0)
        self._tile_scores = CompiledOnce(jax.jit(multi_vector_scores))
        self.rescored, self._in_vain = 0, False

    @staticmethod
    def kept(k: int) -> int:
        """As `ReducedSearch`."""
        return 3 * k + 64

    @staticmethod
    def workspace(k: int, mesh: Mesh, corpus: Vectors | StoredVectors) -> int:
        """As `ReducedSearch`."""
        tiles = LENGTHS * sum(TILE_TOKENS) * corpus.itemsize("tokens")
        return lanes(mesh) * tiles + _Documents.BYTES * len(corpus)

    def __call__(self, queries: Vectors, scored: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray]:
        """As `ReducedSearch`."""
        if self._in_vain:
            return self._plain(queries, scored)
        scan = self._scan(queries, scored)
        places = dict[int, tuple[QueryTokens, int]]()
        for batches, chosen in query_batches("multi_vector", queries, most=self._plain.sizes.queries):
            for batch, rows in zip(batches, chosen, strict=True):
                places |= {row: (batch, place) for place, row in enumerate(rows.tolist())}
        scores = np.full((len(queries), self._k), -np.inf, np.float32)
        positions = np.full((len(queries), self._k), EMPTY, np.int32)
        proven, rescored = np.zeros(len(queries), bool), np.zeros(len(queries), np.int64)

        def query(number: int) -> QueryTokens:
            batch, place = places[number]
            return jax.tree.map(lambda x: x[place][None], batch)

        def lane(numbers: Iterator[int]) -> None:
            rooms = itertools.cycle([Room(), Room()])
            for number in numbers:
                found = self._rescored(jax.device_put(query(number)), scan[0][number], scan[1][number], rooms)
                scores[number], positions[number], proven[number], rescored[number] = found

        in_lanes(self._lanes, (partial(int, number) for number in range(len(queries))), lane)
        self.rescored = int(rescored.sum())
        self.repeated = self._again(~proven, queries, scores, positions)
        self._in_vain = 2 * self.repeated > len(queries)
        return scores, positions

    def _rescored(
        self, query: QueryTokens, reached: np.ndarray, kept: np.ndarray, rooms: Iterator[Room]
    ) -> tuple[np.ndarray, np.ndarray, bool, int]:
        """Scores and positions of a query's best k, whether no other document is among them, and how many were scored.

        Args:
          query: one.
          reached: scores of the scan, falling.
          kept: the positions there.
          rooms: two, in turn.
        """
        error = maxsim_error(np.asarray(query.vectors)[0][np.asarray(query.mask)[0]], self._lengths)
        scores = self._exact(query, kept[: self._k], rooms)
        with np.errstate(all="ignore"):
            more = int(np.count_nonzero(reached >= scores.min() - error))
            count = max(self._k, more)
            scores = np.concatenate([scores, self._exact(query, kept[self._k : count], rooms)])
            order = np.lexsort((kept[:count], -scores))[: self._k]
            proven = bool(scores[order[-1]] > reached[-1] + error)
        return scores[order], kept[order], proven, count

    def _exact(self, query: QueryTokens, positions: np.ndarray, rooms: Iterator[Room]) -> np.ndarray:
        """Scores of documents in float32; of EMPTY -inf."""
        scores = np.full(len(positions), -np.inf, np.float32)
        under_way = deque[tuple[np.ndarray, jax.Array]]()

        def waited() -> None:
            rows, made = under_way.popleft()
            found = np.asarray(made)[0, : len(rows)]
            scores[rows] = np.where(found == 0, np.float32(0), found)  # no -0.0

        for rows, tile in self._documents.tiles(positions, rooms):
            under_way.append((rows, self._tile_scores(query, tile)))
            if len(under_way) > 1:  # the next is gathered meanwhile, in the other room
                waited()
        while under_way:
            waited()
        return scores


class _Documents:
    """The documents of blocks by their positions."""

    BYTES = 2 * 4  # a document

    def __init__(self, blocks: list[Tiles], positions: list[np.ndarray]):
        self._blocks = [jax.tree.map(lambda x: _flat(np.asarray(x)[0]), block) for block in blocks]
        used = [rows[rows != EMPTY] for rows in positions]
        shape = max((int(rows.max()) for rows in used if len(rows)), default=-1) + 1
        self._block, self._slot = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for number, rows in enumerate(positions):
            slots = np.flatnonzero(rows != EMPTY)
            self._block[rows[slots]], self._slot[rows[slots]] = number, slots

    def tiles(self, positions: np.ndarray, rooms: Iterator[Room]) -> Iterator[tuple[np.ndarray, Tiles]]:
        """Documents in tiles of one length: which of them, and the tile, which the next but one may be written over."""
        rows = np.flatnonzero(positions != EMPTY)
        numbers = self._block[positions[rows]]
        lengths = np.array([_length(self._blocks[number].vectors.shape[1]) for number in numbers.tolist()], np.int64)
        for length in np.unique(lengths).tolist():
            mine, start = rows[lengths == length], 0
            few, many = (tile_documents(length, tokens) for tokens in TILE_TOKENS)
            while start < len(mine):
                size = many if len(mine) - start > 2 * few else few
                chosen = mine[start : start + size]
                yield chosen, self._tile(positions[chosen], (1, size, length), next(rooms))
                start += size

    def _tile(self, positions: np.ndarray, shape: tuple[int, int, int], room: Room) -> Tiles:
        """Some documents, filled up with whatever was there before; each with its first token."""
        numbers, slots = self._block[positions].tolist(), self._slot[positions].tolist()
        first = self._blocks[numbers[0]]

        def gathered(name: str) -> np.ndarray:
            like = getattr(first, name)
            made = room(name, (*shape, *like.shape[2:]), like.dtype)
            for to, number, slot in zip(made[0], numbers, slots, strict=False):
                tokens = getattr(self._blocks[number], name)[slot]
                to[: len(tokens)] = tokens
                to[len(tokens) :] = tokens[0]
            return made

        scales = None if first.scales is None else gathered("scales")
        return Tiles(gathered("vectors"), np.ones(1, bool), scales)


def _length(tokens: int) -> int:
    """What the tokens of a document are filled up to: 2 or 3 times a power of two."""
    power = 1 << max(3, (tokens - 1).bit_length() - 1)
    return next(length for length in (power, 3 * power // 2, 2 * power) if length >= tokens)


def _flat(x: np.ndarray) -> np.ndarray:
    """Documents `[m n ...]` of a block's tiles as `[m * n ...]`; what says of the tiles stays."""
    return x.reshape(-1, *x.shape[2:]) if x.ndim > 1 else x
