from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.cli.options import NORMALIZATIONS
from jaxret.errors import InputError
from jaxret.search.fusion import reciprocal_rank, weighted
from jaxret.search.runs import Run

SCORES = st.integers(-3, 3).map(float) | st.floats(-4, 4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
RESULTS = st.dictionaries(st.sampled_from(["q1", "q2", "q3"]), st.dictionaries(st.sampled_from("abcdef"), SCORES))
RUNS = st.lists(RESULTS, min_size=1, max_size=3)
WEIGHTS = st.lists(st.sampled_from([0.0, 0.25, 0.3, 1.0, 2.0]), min_size=3, max_size=3)


def ranks(row):
    ranking = sorted(row, key=lambda document: (row[document], document), reverse=True)
    return {document: rank for rank, document in enumerate(ranking, 1)}


def normalized(row, normalization):
    """Scores of one query, and what a missing document counts."""
    if not row:
        return {}, 0.0
    values = list(row.values())
    low, high = min(values), max(values)
    low_first = sorted(row, key=lambda document: (row[document], document))
    if normalization == "rank":
        return {d: (low_first.index(d) + 1) / len(row) for d in row}, 0.0
    if normalization == "sum":
        total = sum(value - low for value in values)
        row = {d: (s - low) / total if high > low else 1 / len(values) for d, s in row.items()}
        return row, min(row.values())
    if normalization == "max":
        row = {d: s / high if high else 0.0 for d, s in row.items()}
        return row, min(row.values())
    if normalization == "min_max":
        return {d: (s - low) / (high - low) if high > low else 1.0 for d, s in row.items()}, 0.0
    if normalization == "z_score":
        deviation = np.std(values) if high > low else 1.0
        mean = np.mean(values) if high > low else low
        row = {d: (s - mean) / deviation for d, s in row.items()}
    return row, min(row.values())


def loop(runs, weights, part):
    fused = {}
    for query in {query for run in runs for query in run}:
        parts = [part(run.get(query, {})) for run in runs]
        documents = {document for run in runs for document in run.get(query, {})}
        fused[query] = {
            document: sum(
                w * scores.get(document, missing) for w, (scores, missing) in zip(weights, parts, strict=True)
            )
            for document in documents
        }
    return fused


def assert_equal(run, expected):
    found = run.to_dict()
    assert {query: set(row) for query, row in found.items()} == {query: set(row) for query, row in expected.items()}
    for query, row in found.items():
        assert row == pytest.approx(expected[query], abs=1e-6)
        assert list(row) == sorted(row, key=lambda document: (row[document], document), reverse=True)


@given(RUNS, WEIGHTS, st.sampled_from([0, 1, 60]))
def test_reciprocal_rank(results, weights, k):
    weights = weights[: len(results)]
    fused = reciprocal_rank([Run.from_dict(run) for run in results], weights, k)
    assert_equal(fused, loop(results, weights, lambda row: ({d: 1 / (k + r) for d, r in ranks(row).items()}, 0.0)))


@given(RUNS, WEIGHTS, st.sampled_from(NORMALIZATIONS), st.booleans())
def test_weighted(results, weights, normalization, zero):
    if normalization == "max":
        results = [{q: {d: abs(s) for d, s in row.items()} for q, row in run.items()} for run in results]
    weights, missing = weights[: len(results)], "zero" if zero else "lowest"
    fused = weighted([Run.from_dict(run) for run in results], weights, normalization, missing)

    def part(row):
        scores, lowest = normalized(row, normalization)
        return scores, 0.0 if zero else lowest

    assert_equal(fused, loop(results, weights, part))


def test_by_hand():
    lexical = Run.from_dict({"q": {"a": 10.0, "b": 6.0, "c": 2.0}, "alone": {"x": 3.0}})
    dense = Run.from_dict({"q": {"b": 0.9, "d": 0.1}})
    assert reciprocal_rank([lexical, dense]).to_dict() == {
        "q": pytest.approx({"b": 1 / 62 + 1 / 61, "a": 1 / 61, "d": 1 / 62, "c": 1 / 63}),
        "alone": pytest.approx({"x": 1 / 61}),
    }
    assert weighted([lexical, dense], [0.4, 0.6]).to_dict() == {
        "q": pytest.approx({"b": 0.8, "a": 0.4, "d": 0.0, "c": 0.0}),
        "alone": pytest.approx({"x": 0.4}),
    }


def test_a_shared_table_is_kept():
    table = ["a", "b", "c"]
    first = Run.from_top_k(["q"], table, np.array([[0, 2]]), np.array([[2.0, 1.0]]))
    second = Run.from_top_k(["q"], table, np.array([[2, -1]]), np.array([[1.0, 0.0]]))
    fused = weighted([first, second], [0.5, 1])
    assert fused.documents is table and list(fused.to_dict()["q"].items()) == [("c", 1.0), ("a", 0.5)]


def test_equal_scores_are_not_rounding_noise():
    run = Run.from_dict({"q": dict.fromkeys("abcdefg", 0.1)})
    assert set(weighted([run], [1], "z_score").to_dict()["q"].values()) == {0.0}
    assert set(weighted([run], [1], "min_max").to_dict()["q"].values()) == {1.0}


def test_wrong_arguments():
    run = Run.from_dict({"q": {"a": 1.0}})
    with pytest.raises(InputError, match="2 for 1 runs"):
        weighted([run], [0.5, 0.5])
    with pytest.raises(InputError, match="0 for 0 runs"):
        reciprocal_rank([])
    with pytest.raises(InputError, match="min_max, z_score, sum, max, rank, none"):
        weighted([run], [1], "softmax")
    with pytest.raises(InputError, match="lowest, zero"):
        weighted([run], [1], "none", "mean")
    with pytest.raises(InputError, match=r"'q2'.*below 0"):
        weighted([Run.from_dict({"q": {"a": 1.0}, "q2": {"a": 1.0, "b": -1.0}})], [1], "max")
