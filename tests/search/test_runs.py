from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.errors import InputError
from jaxret.search.runs import Run, kept, with_scores

IDS = ["a", "B", "b", "10", "9", "é", "\uffee", "\U0001f600", "ab"]
ROWS = st.dictionaries(st.sampled_from(IDS), st.sampled_from([-1.5, -0.0, 0.0, 0.5, 1.0, 1.0 + 1e-9, 7.25]))
RESULTS = st.dictionaries(st.sampled_from(["q1", "q2", "Q", "質問"]), ROWS)


def ranked(row):
    """trec_eval's order: float32 score descending, id descending."""
    return sorted(row, key=lambda document: (np.float32(row[document]), document), reverse=True)


@given(RESULTS)
def test_from_dict_ranks_as_trec_eval(results):
    run = Run.from_dict(results)
    assert {query: list(row) for query, row in run.to_dict().items()} == {q: ranked(row) for q, row in results.items()}
    for query, row in run.to_dict().items():
        assert row == {document: np.float32(results[query][document]) for document in row}
    assert run.indices.dtype == np.int32 and run.scores.dtype == np.float32 and run.offsets.dtype == np.int64


@given(RESULTS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_from_top_k_equals_from_dict(results, empty, random):
    width = max((len(row) for row in results.values()), default=0) + empty
    positions = np.full((len(results), width), -1, np.int32)
    scores = np.full((len(results), width), np.nan)
    for i, row in enumerate(results.values()):
        for slot, document in zip(random.sample(range(width), len(row)), row, strict=True):
            positions[i, slot], scores[i, slot] = IDS.index(document), row[document]
    run = Run.from_top_k(list(results), IDS, positions, scores)
    assert [list(row.items()) for row in run.to_dict().values()] == [
        list(row.items()) for row in Run.from_dict(results).to_dict().values()
    ]


def test_many_tied_rows():
    random = np.random.default_rng(0)
    documents = [str(n) for n in random.permutation(500)]
    positions = np.stack([random.permutation(500)[:50] for _ in range(40)])
    scores = random.integers(0, 4, positions.shape)
    run = Run.from_top_k([str(n) for n in range(40)], documents, positions, scores)
    for i, row in enumerate(run.to_dict().values()):
        pairs = {documents[p]: s for p, s in zip(positions[i], scores[i], strict=True)}
        assert list(row) == ranked(pairs)


@pytest.mark.parametrize(
    ("positions", "scores", "problem"),
    [
        ([[0, 0], [1, 2]], [[2, 1], [2, 1]], "'x' occurs twice for query 'q1'"),
        ([[0, 1], [2, 2]], [[2, 1], [2, 1]], "'z' occurs twice for query 'q2'"),
        ([[0, 1], [2, -1]], [[2, np.nan], [2, 1]], "query 'q1' is not finite"),
        ([[0, 1], [2, 3]], [[2, 1], [2, 1]], "position 3 of 3 documents"),
        ([[0, 1]], [[2, 1]], "sizes differ"),
    ],
)
def test_broken_promises(positions, scores, problem):
    with pytest.raises(InputError, match=problem):
        Run.from_top_k(["q1", "q2"], ["x", "y", "z"], np.array(positions), np.array(scores))


def test_repeats_in_rows_of_different_lengths():
    rows, indices = np.array([1, 0, 1]), np.array([1, 0, 1])
    with pytest.raises(InputError, match="'y' occurs twice for query 'q2'"):
        Run.from_pairs(["q1", "q2"], ["x", "y"], rows, indices, np.ones(3))


def test_repeated_query():
    with pytest.raises(InputError, match="query 'q' occurs twice"):
        Run.from_top_k(["q", "q"], ["x"], np.zeros((2, 1), int), np.zeros((2, 1)))


def test_kept_and_with_scores():
    run = Run.from_dict({"q1": {"a": 3, "b": 2, "c": 1}, "q2": {}, "q3": {"a": 1}})
    assert kept(run, np.array([True, False, True, False])).to_dict() == {"q1": {"a": 3, "c": 1}, "q2": {}, "q3": {}}
    assert list(with_scores(run, np.array([1, 1, 2, 0])).to_dict()["q1"].items()) == [("c", 2), ("b", 1), ("a", 1)]
