"""The weight of a fusion, chosen where the labels may be looked at."""

from __future__ import annotations

from collections.abc import Sequence

from jaxret.eval.judgements import Qrels
from jaxret.eval.measures import Measure
from jaxret.eval.metrics import mean_scores
from jaxret.search.fusion import weighted
from jaxret.search.runs import Run

GRID = tuple(step / 20 for step in range(21))


def best_weight(
    run_a: Run, run_b: Run, qrels: Qrels, measure: str | Measure = "ndcg@10", grid: Sequence[float] = GRID
) -> float:
    """The weight w of the grid for which (1 - w) * a + w * b, min-max normalised, is best; the lowest of equals.

    Give it the queries and judgements of a development split, never those that the fusion is measured on.
    """
    return max(sorted(grid), key=lambda weight: _score(run_a, run_b, weight, qrels, measure))


def _score(run_a: Run, run_b: Run, weight: float, qrels: Qrels, measure: str | Measure) -> float:
    (score,) = mean_scores(weighted([run_a, run_b], [1 - weight, weight]), qrels, [measure]).values()
    return score
