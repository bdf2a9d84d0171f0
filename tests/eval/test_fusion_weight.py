from __future__ import annotations

from jaxret.eval.fusion_weight import GRID, best_weight
from jaxret.eval.metrics import mean_scores
from jaxret.search.fusion import weighted
from jaxret.search.runs import Run

QRELS = {"q1": {"a": 1}, "q2": {"b": 1}}
FIRST = Run.from_dict({"q1": {"a": 3.0, "b": 2.0, "c": 0.0}, "q2": {"c": 3.0, "b": 2.0, "a": 0.0}})
SECOND = Run.from_dict({"q1": {"b": 3.0, "a": 2.5, "c": 0.0}, "q2": {"b": 3.0, "a": 2.0, "c": 0.0}})


def test_best_of_the_grid():
    scores = {w: mean_scores(weighted([FIRST, SECOND], [1 - w, w]), QRELS, ["mrr"])["mrr"] for w in GRID}
    best = best_weight(FIRST, SECOND, QRELS, "mrr")
    assert scores[best] == max(scores.values()) == 1.0 and best == min(w for w in GRID if scores[w] == 1.0)
    assert 0 < best < 1 and scores[0.0] < 1 and scores[1.0] < 1


def test_given_grid_and_ends():
    assert best_weight(FIRST, SECOND, {"q1": {"a": 1}}, "mrr", [1.0, 0.1, 0.0]) == 0.0
    assert best_weight(FIRST, SECOND, {"q2": {"b": 1}}, "mrr", [0.0, 1.0]) == 1.0
    assert best_weight(FIRST, FIRST, QRELS) == 0.0
