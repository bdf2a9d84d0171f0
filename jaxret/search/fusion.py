"""Several runs into one: reciprocal ranks, or weighted sums of normalised scores.

The result of a query has every document that any of the runs found for it, and the queries of all runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jaxret.errors import InputError
from jaxret.search.runs import Run


def reciprocal_rank(runs: Sequence[Run], weights: Sequence[float | int] | None = None, k: int = 60) -> Run:
    """Reciprocal rank fusion: the sum over runs of weight / (k + rank), rank from 1 (Cormack et al. 2009).

    A run that lacks the document adds 0. Weights are 1 by default.

    Raises:
      InputError: no runs, or another number of weights than of runs.
    """

    def values(run: Run) -> tuple[np.ndarray, np.ndarray]:
        ranks = np.arange(len(run.indices)) - run.offsets[run.rows] + 1
        return 1 / (k + ranks), np.zeros(len(run))

    return _fused(runs, [1.0] * len(runs) if weights is None else weights, values)


def weighted(
    runs: Sequence[Run], weights: Sequence[float | int], normalization: str = "min_max", missing: str = "lowest"
) -> Run:
    """The sum over runs of weight * normalised score.

    Args:
      runs: the runs.
      weights: one a run.
      normalization: of the n scores s of a query within a run:
        `min_max`: (s - min) / (max - min), all 1 where they are equal;
        `z_score`: (s - mean) / standard deviation (of n, not n - 1), all 0 where they are equal;
        `sum`: (s - min) / the sum of all (s - min), all 1 / n where they are equal (Montague and Aslam 2001);
        `max`: s / max, for scores of 0 and more, all 0 where they are 0;
        `rank`: 1 - (rank - 1) / n, rank from 1 (Renda and Straccia 2003);
        `none`: s.
      missing: what a run adds for a document that it lacks: its `lowest` normalised score of that query (0 with
        `min_max` and `sum`), or `zero`. With `rank`, and where it lacks the query, always 0.

    Raises:
      InputError: no runs, another number of weights than of runs, an unknown normalisation or `missing`, or a score
        below 0 with `max`.
    """
    for name, value, choices in (
        ("normalization", normalization, tuple(_NORMALIZATIONS)),
        ("missing", missing, ("lowest", "zero")),
    ):
        if value not in choices:
            raise InputError(name, f"{value!r} is unknown", f"Choose from {', '.join(choices)}.")

    def values(run: Run) -> tuple[np.ndarray, np.ndarray]:
        retrieved, lowest = _NORMALIZATIONS[normalization](run)
        return retrieved, lowest if missing == "lowest" else np.zeros(len(run))

    return _fused(runs, weights, values)


def _fused(
    runs: Sequence[Run], weights: Sequence[float | int], values: Callable[[Run], tuple[np.ndarray, np.ndarray]]
) -> Run:
    """The weighted sum of what `values` says of each run: [total] by result, and [q] for a document not there."""
    if not runs or len(weights) != len(runs):
        raise InputError(
            "weights", f"{len(weights)} for {len(runs)} runs", "Give one weight a run, and a run at least."
        )
    query_ids = list(dict.fromkeys(query for run in runs for query in run.query_ids))
    documents, indices = _common_table(runs)
    row_of = {query: row for row, query in enumerate(query_ids)}
    own_rows = [np.array([row_of[query] for query in run.query_ids], np.int64) for run in runs]
    keys = [
        rows[run.rows] * len(documents) + columns for run, rows, columns in zip(runs, own_rows, indices, strict=True)
    ]
    pairs, places = np.unique(np.concatenate(keys), return_inverse=True)
    rows, columns = np.divmod(pairs, max(len(documents), 1))
    ends = np.cumsum([len(run.indices) for run in runs])[:-1]
    scores = np.zeros(len(pairs))
    for run, weight, run_rows, present in zip(runs, weights, own_rows, np.split(places, ends), strict=True):
        retrieved, missing = values(run)
        base = np.zeros(len(query_ids))
        base[run_rows] = missing
        column = base[rows]
        column[present] = retrieved
        scores += weight * column
    return Run.from_pairs(query_ids, documents, rows, columns, scores)


def _common_table(runs: Sequence[Run]) -> tuple[Sequence[str], list[np.ndarray]]:
    """One table of documents, and the indices of each run into it."""
    first = runs[0].documents
    if all(run.documents is first or run.documents == first for run in runs):
        return first, [run.indices.astype(np.int64) for run in runs]
    table: dict[str, int] = {}
    indices = []
    for run in runs:
        used, inverse = np.unique(run.indices, return_inverse=True)
        own = [table.setdefault(run.documents[index], len(table)) for index in used.tolist()]
        indices.append(np.array(own, np.int64)[inverse])
    return list(table), indices


def _extremes(run: Run, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[q] each: the lowest and the highest score of a row, which are its last and its first; 0 where it is empty."""
    filled = np.diff(run.offsets) > 0
    low, high = np.zeros(len(run)), np.zeros(len(run))
    low[filled] = scores[run.offsets[1:][filled] - 1]
    high[filled] = scores[run.offsets[:-1][filled]]
    return low, high


def _plain(run: Run) -> tuple[np.ndarray, np.ndarray]:
    scores = run.scores.astype(np.float64)
    return scores, _extremes(run, scores)[0]


def _min_max(run: Run) -> tuple[np.ndarray, np.ndarray]:
    scores = run.scores.astype(np.float64)
    low, high = _extremes(run, scores)
    width = (high - low)[run.rows]
    normal = np.divide(scores - low[run.rows], width, out=np.ones(len(scores)), where=width > 0)
    return normal, np.zeros(len(run))


def _z_score(run: Run) -> tuple[np.ndarray, np.ndarray]:
    scores = run.scores.astype(np.float64)
    low, high = _extremes(run, scores)
    rows, lengths = run.rows, np.maximum(np.diff(run.offsets), 1)
    centred = scores - (np.bincount(rows, scores, len(run)) / lengths)[rows]
    deviation = np.sqrt(np.bincount(rows, centred**2, len(run)) / lengths)[rows]
    normal = np.divide(centred, deviation, out=np.zeros(len(scores)), where=(high > low)[rows])
    return normal, _extremes(run, normal)[0]


def _sum(run: Run) -> tuple[np.ndarray, np.ndarray]:
    scores = run.scores.astype(np.float64)
    low, high = _extremes(run, scores)
    rows, lengths = run.rows, np.diff(run.offsets)
    shifted = scores - low[rows]
    total = np.bincount(rows, shifted, len(run))[rows]
    normal = np.divide(shifted, total, out=1 / np.maximum(lengths, 1)[rows], where=(high > low)[rows])
    return normal, _extremes(run, normal)[0]


def _max(run: Run) -> tuple[np.ndarray, np.ndarray]:
    scores = run.scores.astype(np.float64)
    low, high = _extremes(run, scores)
    if (low < 0).any():
        problem = f"query {run.query_ids[int(np.flatnonzero(low < 0)[0])]!r} has a score below 0"
        raise InputError("normalization", f"max: {problem}", "Choose min_max or z_score.")
    highest = high[run.rows]
    normal = np.divide(scores, highest, out=np.zeros(len(scores)), where=highest > 0)
    return normal, _extremes(run, normal)[0]


def _rank(run: Run) -> tuple[np.ndarray, np.ndarray]:
    rows = run.rows
    before = np.arange(len(run.indices)) - run.offsets[rows]
    return 1 - before / np.maximum(np.diff(run.offsets), 1)[rows], np.zeros(len(run))


_NORMALIZATIONS = {
    "min_max": _min_max,
    "z_score": _z_score,
    "sum": _sum,
    "max": _max,
    "rank": _rank,
    "none": _plain,
}
