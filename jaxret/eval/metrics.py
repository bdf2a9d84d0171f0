"""Retrieval measures over a run, equal to trec_eval's: each judgement's rank is looked up, the rest is arithmetic."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxret.eval.judgements import Judgements, Qrels, positions
from jaxret.eval.measures import Measure, parse_measure
from jaxret.search.runs import Run, kept

RULES = {
    "ties": "float32 score descending, then document id descending by code point, as trec_eval",
    "queries": "mean over all queries with a judgement (of any grade); a query missing from the run counts 0",
    "gains": "ndcg: gain = grade, discount log2(rank + 1), ideal over all judgements; else grade >= 1 is relevant",
    "negative_grades": "as not relevant",
    "map": "divided by all relevant documents, also under a cut-off",
    "recall_cap": "relevant found / min(k, relevant)",
    "identical_ids": "a document with the query's id counts as any other",
}
IGNORED_IDENTICAL_IDS = "a document with the query's id is taken out of the run"


def rules(ignore_identical_ids: bool = False) -> dict[str, str]:
    """The rules to print beside results."""
    return {**RULES, "identical_ids": IGNORED_IDENTICAL_IDS} if ignore_identical_ids else dict(RULES)


def mean_scores(
    run: Run, qrels: Qrels | Judgements, measures: Sequence[str | Measure], *, ignore_identical_ids: bool = False
) -> dict[str, float]:
    """Means over all judged queries, in [0, 1]; arguments as in `scores_per_query`."""
    scores = scores_per_query(run, qrels, measures, ignore_identical_ids=ignore_identical_ids)
    return {key: float(values.mean()) if len(values) else 0.0 for key, values in scores.items()}


def scores_per_query(
    run: Run, qrels: Qrels | Judgements, measures: Sequence[str | Measure], *, ignore_identical_ids: bool = False
) -> dict[str, np.ndarray]:
    """`{key: float64 [q]}` over the judged queries, in the order of the qrels (of `Judgements.query_ids`), in [0, 1].

    Args:
      run: the results; queries that were not judged are ignored.
      qrels: `{query id: {document id: grade}}`, or `Judgements` over `run.documents` to save their making.
      measures: measures or their names, see `parse_measure`.
      ignore_identical_ids: takes a document with the query's own id out of the run, as BEIR does for duplicate search.

    Raises:
      InputError: an unknown measure.
    """
    parsed = [parse_measure(measure) if isinstance(measure, str) else measure for measure in measures]
    judgements = qrels if isinstance(qrels, Judgements) else Judgements.of(qrels, run.documents)
    if judgements.documents is not run.documents and judgements.documents != run.documents:
        raise ValueError("The judgements were made for another document table than the run's.")
    found = _found(_without_identical_ids(run) if ignore_identical_ids else run, judgements)
    return {measure.key: _FORMULAS[measure.name](found, measure.k or sys.maxsize) for measure in parsed}


def _without_identical_ids(run: Run) -> Run:
    index_of = positions(run.documents, set(run.query_ids))
    own = np.array([index_of.get(query, -1) for query in run.query_ids], np.int64)
    return kept(run, run.indices != own[run.rows])


@dataclass(frozen=True, eq=False)
class _Found:
    """Relevant documents: those retrieved by (row, rank), and all of them by (row, grade descending)."""

    rows: np.ndarray
    ranks: np.ndarray
    grades: np.ndarray
    ideal_rows: np.ndarray
    ideal_ranks: np.ndarray
    ideal_grades: np.ndarray
    num_relevant: np.ndarray

    def sums(self, weights: np.ndarray, k: int) -> np.ndarray:
        """float64 [q]: sums of `weights` over the relevant documents in the first k results."""
        return np.bincount(self.rows, weights * (self.ranks <= k), len(self.num_relevant))


def _found(run: Run, judgements: Judgements) -> _Found:
    num_relevant = np.bincount(judgements.rows, minlength=len(judgements.query_ids))
    firsts = np.cumsum(num_relevant) - num_relevant
    ideal_ranks = np.arange(len(judgements.rows)) - firsts[judgements.rows] + 1
    row_of = {query: row for row, query in enumerate(run.query_ids)}
    run_rows = np.array([row_of.get(query, -1) for query in judgements.query_ids], np.int64)
    ranks = _ranks(run, run_rows[judgements.rows], judgements.indices)
    order = np.lexsort((ranks, judgements.rows))
    order = order[ranks[order] > 0]
    retrieved = judgements.rows[order], ranks[order], judgements.grades[order]
    return _Found(*retrieved, judgements.rows, ideal_ranks, judgements.grades, num_relevant)


def _ranks(run: Run, rows: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """int64 [n]: the rank from 1 of document `indices[i]` in row `rows[i]` of the run, 0 where it is not there.

    A block of rows at a time, the wanted pairs are marked in a table [rows in the block, documents] of a few megabytes,
    and the block's results are looked up in it.
    """
    size, lengths = len(run.documents), np.diff(run.offsets)
    ranks = np.zeros(len(rows), np.int64)
    wanted = np.flatnonzero((rows >= 0) & (indices >= 0))
    wanted = wanted[np.argsort(rows[wanted], kind="stable")]
    block = max(1, 2**20 // max(size, 1))
    table, shifts = np.zeros(block * size, np.int32), np.arange(block) * size
    bounds = np.searchsorted(rows[wanted], np.arange(0, len(run) + block, block)).tolist()
    for first, low, high in zip(range(0, len(run), block), bounds[:-1], bounds[1:], strict=False):
        pairs = wanted[low:high]
        cells = shifts[rows[pairs] - first] + indices[pairs]
        table[cells] = np.arange(1, len(pairs) + 1)
        last = min(first + block, len(run))
        begin, end = run.offsets[first], run.offsets[last]
        marks = table.take(run.indices[begin:end] + np.repeat(shifts[: last - first], lengths[first:last]))
        hits = np.flatnonzero(marks)
        found = pairs[marks[hits] - 1]
        ranks[found] = hits + begin - run.offsets[rows[found]] + 1
        table[cells] = 0
    return ranks


def _divided(sums: np.ndarray, by: np.ndarray) -> np.ndarray:
    return np.divide(sums, by, out=np.zeros(len(sums)), where=by > 0)


def _ndcg(found: _Found, k: int) -> np.ndarray:
    ideal = found.ideal_grades / np.log2(found.ideal_ranks + 1) * (found.ideal_ranks <= k)
    gains = found.sums(found.grades / np.log2(found.ranks + 1), k)
    return _divided(gains, np.bincount(found.ideal_rows, ideal, len(found.num_relevant)))


def _map(found: _Found, k: int) -> np.ndarray:
    firsts = np.searchsorted(found.rows, found.rows)
    relevant_so_far = np.arange(len(found.rows)) - firsts + 1
    return _divided(found.sums(relevant_so_far / found.ranks, k), found.num_relevant)


def _mrr(found: _Found, k: int) -> np.ndarray:
    best = np.searchsorted(found.rows, found.rows) == np.arange(len(found.rows))
    return found.sums(best / found.ranks, k)


def _retrieved(found: _Found, k: int) -> np.ndarray:
    return found.sums(np.ones(len(found.rows)), k)


_FORMULAS = {
    "ndcg": _ndcg,
    "map": _map,
    "mrr": _mrr,
    "recall": lambda found, k: _divided(_retrieved(found, k), found.num_relevant),
    "recall_cap": lambda found, k: _divided(_retrieved(found, k), np.minimum(found.num_relevant, k)),
    "precision": lambda found, k: _retrieved(found, k) / k,
    "hit_rate": lambda found, k: (_retrieved(found, k) > 0).astype(np.float64),
}
