"""A run: for each query its ranked documents. Arrays inside, dictionaries and files outside (`run_files.py`).

Rank order everywhere is trec_eval's: float32 score descending, then document id descending by code point.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxret.errors import InputError


@dataclass(frozen=True, eq=False)
class Run:
    """Ranked results. Row `i`, the results of `query_ids[i]`, is `offsets[i]` to `offsets[i + 1]` of the other arrays.

    Make one with `from_top_k`, `from_dict`, `from_pairs` or `read_run`, which bring the rows into rank order.

    Attributes:
      query_ids: one id a row, all different.
      documents: the id table that `indices` point into; it may hold documents that no row has.
      offsets: int64 [q + 1].
      indices: int32 [total], positions in `documents`, none twice in a row.
      scores: float32 [total], finite.
    """

    query_ids: list[str]
    documents: Sequence[str]
    offsets: np.ndarray
    indices: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        """The number of queries."""
        return len(self.query_ids)

    @property
    def rows(self) -> np.ndarray:
        """int64 [total]: the row that each result belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @classmethod
    def from_top_k(
        cls, query_ids: Sequence[str], documents: Sequence[str], positions: np.ndarray, scores: np.ndarray
    ) -> Run:
        """The run of a search.

        Args:
          query_ids: q ids.
          documents: the id table.
          positions: int [q k], positions in `documents`; -1 is an empty slot and is dropped.
          scores: float [q k], in any order; those of empty slots are ignored.

        Raises:
          InputError: an id, position or score that breaks what a run promises.
        """
        positions, scores = np.asarray(positions), np.asarray(scores, np.float32)
        filled = positions >= 0
        offsets = _offsets(filled.sum(axis=1))
        if not filled.all():
            positions, scores = positions[filled], scores[filled]
        run = cls(list(query_ids), documents, offsets, positions.ravel().astype(np.int32), scores.ravel())
        return _ranked(_checked(run))

    @classmethod
    def from_pairs(
        cls,
        query_ids: Sequence[str],
        documents: Sequence[str],
        rows: np.ndarray,
        indices: np.ndarray,
        scores: np.ndarray,
    ) -> Run:
        """The run of (row, document, score) triples in any order. Raises InputError as `from_top_k` does."""
        order = np.argsort(rows, kind="stable")
        offsets = _offsets(np.bincount(rows, minlength=len(query_ids)))
        ordered = np.asarray(indices)[order].astype(np.int32), np.asarray(scores)[order].astype(np.float32)
        return _ranked(_checked(cls(list(query_ids), documents, offsets, *ordered)))

    @classmethod
    def from_dict(cls, results: Mapping[str, Mapping[str, float | int]]) -> Run:
        """The run of `{query id: {document id: score}}`."""
        table: dict[str, int] = {}
        indices = [table.setdefault(document, len(table)) for row in results.values() for document in row]
        scores = [score for row in results.values() for score in row.values()]
        rows = np.repeat(np.arange(len(results)), [len(row) for row in results.values()])
        return cls.from_pairs(list(results), list(table), rows, np.array(indices, np.int32), np.array(scores, float))

    def to_dict(self) -> dict[str, dict[str, float]]:
        """`{query id: {document id: score}}`, best first."""
        return dict(self.results())

    def results(self) -> Iterator[tuple[str, dict[str, float]]]:
        """A query's id and its results at a time, as `to_dict` has them."""
        offsets = self.offsets.tolist()
        for query, begin, end in zip(self.query_ids, offsets[:-1], offsets[1:], strict=True):
            ids = [self.documents[index] for index in self.indices[begin:end].tolist()]
            yield query, dict(zip(ids, self.scores[begin:end].tolist(), strict=True))


def with_scores(run: Run, scores: np.ndarray) -> Run:
    """The run with other scores (float [total], by its present order), ranked by them."""
    return _ranked(_checked(replace(run, scores=np.asarray(scores, np.float32))))


def kept(run: Run, keep: np.ndarray) -> Run:
    """The run without the results where `keep` (bool [total]) is False; all its queries stay."""
    offsets = _offsets(np.bincount(run.rows[keep], minlength=len(run)))
    return replace(run, offsets=offsets, indices=run.indices[keep], scores=run.scores[keep])


def first(run: Run, depth: int) -> Run:
    """The run with the first `depth` results of each query."""
    return kept(run, np.arange(len(run.indices)) - run.offsets[run.rows] < depth)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _checked(run: Run) -> Run:
    if len(set(run.query_ids)) != len(run.query_ids):
        query = next(query for query in run.query_ids if run.query_ids.count(query) > 1)
        raise InputError("run", f"query {query!r} occurs twice", "Give every query an id of its own.")
    if len(run.offsets) != len(run) + 1 or len(run.indices) != len(run.scores):
        sizes = (
            f"{len(run)} query ids, {len(run.offsets) - 1} rows, {len(run.indices)} documents, {len(run.scores)} scores"
        )
        raise InputError("run", f"sizes differ: {sizes}", "Give one row a query and one score a document.")
    if len(run.indices) and int(run.indices.max()) >= len(run.documents):
        raise InputError(
            "run", f"position {run.indices.max()} of {len(run.documents)} documents", "Pass the corpus searched."
        )
    if not np.isfinite(run.scores).all():
        row = run.rows[~np.isfinite(run.scores)][0]
        raise InputError("run", f"a score of query {run.query_ids[row]!r} is not finite", "Look for NaN in the model.")
    repeated = _repeated(run)
    if repeated is not None:
        row, index = repeated
        problem = f"document {run.documents[index]!r} occurs twice for query {run.query_ids[row]!r}"
        raise InputError("run", problem, "List a document once a query.")
    return run


def _repeated(run: Run) -> tuple[int, int] | None:
    """Row and document of a result that occurs twice, or None."""
    lengths = np.diff(run.offsets)
    if len(run) and (lengths == lengths[0]).all():  # sorting many short rows is five times faster than one long key
        ordered = np.sort(run.indices.reshape(len(run), -1), axis=1)
        if not (ordered[:, 1:] == ordered[:, :-1]).any():
            return None
    keys = np.sort(run.rows * len(run.documents) + run.indices)
    twice = keys[1:][keys[1:] == keys[:-1]]
    return divmod(int(twice[0]), len(run.documents)) if len(twice) else None


def _ranked(run: Run) -> Run:
    """The run with every row in rank order."""
    same_row = np.ones(max(len(run.indices) - 1, 0), bool)
    boundaries = run.offsets[1:-1]
    same_row[boundaries[(boundaries > 0) & (boundaries < len(run.indices))] - 1] = False
    indices, scores = run.indices, run.scores + np.float32(0)  # + 0 makes -0.0 and 0.0 one
    if (same_row & (scores[1:] > scores[:-1])).any():
        order = np.argsort((run.rows << 32) - _ordinals(scores))
        indices, scores = indices[order], scores[order]
    return replace(
        run, indices=_ties_broken(run.documents, same_row & (scores[1:] == scores[:-1]), indices), scores=scores
    )


def _ordinals(scores: np.ndarray) -> np.ndarray:
    """int64 that compare as the float32 `scores` (without -0.0) do, between -2**31 and 2**31."""
    bits = scores.view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)


def _ties_broken(documents: Sequence[str], tied: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """`indices` with each stretch of equal scores in descending order of ids.

    Args:
      documents: the id table; only ids that take part in a tie are sorted, each once.
      tied: bool [total - 1], whether a result has the row and the score of the one before it.
      indices: int32 [total].
    """
    if not tied.any():
        return indices
    starts = np.concatenate([[True], ~tied])
    members = np.flatnonzero(~starts | np.concatenate([tied, [False]]))
    candidates = indices[members]
    involved, which = np.unique(candidates, return_inverse=True)
    names = [documents[index] for index in involved.tolist()]
    order = sorted(range(len(names)), key=names.__getitem__, reverse=True)
    descending = involved[order]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    # One sort of (stretch, place) packed in an integer is faster than an argsort.
    bits = len(order).bit_length()
    keys = (np.cumsum(starts[members]) << bits) + place[which]
    keys.sort()
    broken = indices.copy()
    broken[members] = descending[keys & ((1 << bits) - 1)]
    return broken
