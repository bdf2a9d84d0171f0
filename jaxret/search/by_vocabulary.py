"""Exact lexical search by vocabulary, on the host: a query adds up the postings of its own terms and of no others.

A term's postings are the documents that have it and their weights. Products are rounded, then added in ascending order
of terms. `ops.block_scores.lexical_scores`, which goes through the terms of each document instead, adds the same
numbers in the same order with zeros between them, so the scores have the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from jaxret.errors import InputError
from jaxret.ops.topk import EMPTY
from jaxret.search.budget import part_bytes
from jaxret.search.lanes import in_lanes
from jaxret.search.store import StoredVectors, joined
from jaxret.search.vectors import Ragged, Vectors

ARRAYS = ("term_ids", "term_weights")
BLOCK = 32768  # documents of a block at most: a core's cache holds a query's scores of them
PORTION = 4096  # queries of a walk through the corpus
COPIES = 3  # of a block's documents in a lane: as they are read, by term, and the block before by term


class Postings(NamedTuple):
    """A block of documents by term.

    Attributes:
      weights: float32 [c v], a scipy.sparse.csc_array.
      positions: int32 [c], ascending.
    """

    weights: Any
    positions: np.ndarray


class Best(NamedTuple):
    """The best results so far; an empty slot has score -inf and position EMPTY.

    Attributes:
      scores: float32 [q k], descending.
      positions: int32 [q k], ascending where scores are equal.
    """

    scores: np.ndarray
    positions: np.ndarray


class VocabularySearch:
    """The lexical weights of a corpus.

    Args:
      corpus, k, vocab_size, share: as `ExactSearch` takes them.
      dtype: what queries' weights are rounded to; products are float32.
      memory_budget_gb: None keeps the whole corpus in memory; otherwise each call reads it in parts.

    Raises:
      InputError: the corpus has a term beyond the vocabulary.
    """

    def __init__(
        self,
        corpus: Vectors | StoredVectors,
        k: int,
        vocab_size: int,
        dtype: np.dtype,
        memory_budget_gb: float | int | None,
        share: tuple[int, int],
    ):
        self._corpus, self._k, self._vocab_size, self._share = corpus, k, vocab_size, share
        self._dtype, self._budget, self._held = dtype, memory_budget_gb, list[Postings]()
        self._lanes = len(os.sched_getaffinity(0)) + (memory_budget_gb is not None)
        if memory_budget_gb is None:
            made = chain(*in_lanes(self._lanes, self._blocks(None), list))
            self._held = sorted(made, key=lambda block: int(block.positions[0]))
            self._lanes = min(self._lanes, max(len(self._held), 1))

    def __call__(
        self, queries: Vectors, scored: Callable[[int, int], None]
    ) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
        """Scores and positions as of `ExactSearch`.

        Args:
          queries: their vectors.
          scored: hears how many queries have met how many more documents.
        """
        found = _nothing(len(queries), self._k)
        for start in range(0, len(queries), PORTION):
            portion = queries.part(start, min(start + PORTION, len(queries)))
            lanes = self._scanned(portion, partial(scored, len(portion)))
            for row in range(len(portion)):
                scores, positions = (
                    np.concatenate([part[row] for part in parts]) for parts in zip(*lanes, strict=True)
                )
                order = np.lexsort((positions, -scores))[: self._k]
                found.scores[start + row], found.positions[start + row] = scores[order], positions[order]
        return found.scores, found.positions

    def _scanned(self, queries: Vectors, scored: Callable[[int], None]) -> list[Best]:
        """What each lane found in one walk through the corpus."""
        terms, weights = queries.needed("term_ids"), queries.needed("term_weights")
        rounded = Ragged(weights.values.astype(self._dtype).astype(np.float32), weights.offsets)
        blocks: Iterator[Callable[[], Postings]]
        if self._budget is None:
            blocks = (partial(Postings, *held) for held in self._held)
        else:
            others = self._lanes * (8 * self._vocab_size + 16 * BLOCK) + 8 * self._k * len(queries) * (self._lanes + 1)
            blocks = self._blocks(part_bytes(self._budget, others) // (COPIES * self._lanes))

        def lane(blocks: Iterator[Postings]) -> Best:
            best = _nothing(len(queries), self._k)
            for block in blocks:
                for row in range(len(queries)):
                    scores = block.weights[:, terms.row(row)] @ rounded.row(row)
                    _enter(best.scores[row], best.positions[row], scores, block.positions)
                scored(len(block.positions))
            return best

        return in_lanes(self._lanes, blocks, lane)

    def _blocks(self, limit: int | None) -> Iterator[Callable[[], Postings]]:
        """Blocks of so many bytes at most, yet to be sorted by term; large parts are cut, small ones joined."""
        held, documents, size = list[tuple[int, Vectors]](), 0, 0
        for first, part in self._corpus.parts(ARRAYS, limit, self._share):
            for start in range(0, len(part), BLOCK):
                piece = part.part(start, min(start + BLOCK, len(part)))
                more = piece.nbytes(ARRAYS)
                if held and (documents + len(piece) > BLOCK or (limit and size + more > limit)):
                    yield partial(self._postings, held)
                    held, documents, size = [], 0, 0
                held.append((first + start, piece))
                documents, size = documents + len(piece), size + more
        if held:
            yield partial(self._postings, held)

    def _postings(self, pieces: list[tuple[int, Vectors]]) -> Postings:
        from scipy.sparse import csr_array  # half as long to import as all of jax

        firsts, parts = zip(*pieces, strict=True)
        vectors = parts[0] if len(parts) == 1 else joined(parts)
        ids, weights = vectors.needed("term_ids"), vectors.needed("term_weights")
        largest = int(ids.values.max(initial=-1))
        if largest >= self._vocab_size:
            problem = f"a document has the term {largest}, of a vocabulary of {self._vocab_size}"
            raise InputError("term_ids", problem, "Search with the model that encoded the corpus.")
        offsets = ids.offsets.astype(np.int32) if ids.offsets[-1] < 2**31 else ids.offsets  # scipy keeps their dtype
        shape = (len(vectors), self._vocab_size)
        documents = csr_array((weights.values.astype(np.float32, copy=False), ids.values, offsets), shape=shape)
        rows = [np.arange(first, first + len(part), dtype=np.int32) for first, part in zip(firsts, parts, strict=True)]
        return Postings(documents.tocsc(), np.concatenate(rows))


def _nothing(queries: int, k: int) -> Best:
    return Best(np.full((queries, k), -np.inf, np.float32), np.full((queries, k), EMPTY, np.int32))


def _enter(
    best: Float32[np.ndarray, " k"],
    best_positions: Int32[np.ndarray, " k"],
    scores: Float32[np.ndarray, " c"],
    positions: Int32[np.ndarray, " c"],
) -> None:
    """Puts a block's best documents among a query's, in place.

    A lane's blocks ascend, so a document with the score of one that is there already comes after it.
    """
    k, better = len(best), scores > best[-1]
    if np.count_nonzero(better) > k:
        better &= scores >= _reached(scores, k)
    entering = np.flatnonzero(better)
    if len(entering):
        together = np.concatenate([best, scores[entering]])
        order = np.argsort(-together, kind="stable")[:k]
        best[:] = together[order]
        best_positions[:] = np.concatenate([best_positions, positions[entering]])[order]


def _reached(scores: Float32[np.ndarray, " c"], k: int) -> np.float32:
    """A score that k of more documents reach and few others: the k-th of the best of groups of them."""
    width = max(1, len(scores) // (4 * k))
    groups = scores[: len(scores) // width * width].reshape(width, -1).max(axis=0)
    return np.partition(groups, -k)[-k]
