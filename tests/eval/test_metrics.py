from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from jaxret.errors import InputError
from jaxret.eval.judgements import Judgements
from jaxret.eval.metrics import RULES, mean_scores, rules, scores_per_query
from jaxret.search.runs import Run

IDS = ["a", "b", "B", "10", "9", "é", "\uffee", "\U0001f600", "ab", "z"]
QUERIES = ["q1", "q2", "q3", "a"]
TIED = st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-9, 2.0]) | st.floats(-5, 5, width=32)
RESULTS = st.dictionaries(st.sampled_from([*QUERIES, "unjudged"]), st.dictionaries(st.sampled_from(IDS), TIED))
# Negative grades stand in a test of their own: with nothing else in a query, pytrec_eval does not return.
QRELS = st.dictionaries(
    st.sampled_from([*QUERIES, "missing"]),
    st.dictionaries(st.sampled_from([*IDS, "absent"]), st.integers(0, 4), min_size=1),
    min_size=1,
)
CUTOFFS = (1, 2, 3, 5, 100)
PEERS = {
    "ndcg": "ndcg_cut",
    "map": "map_cut",
    "recall": "recall",
    "precision": "P",
    "hit_rate": "success",
}
TREC = {f"{ours}@{k}": f"{theirs}_{k}" for ours, theirs in PEERS.items() for k in CUTOFFS}
TREC |= {"ndcg": "ndcg", "map": "map", "mrr": "recip_rank"}


def trec_eval(results, qrels):
    names = {f"{name}.{','.join(map(str, CUTOFFS))}" for name in PEERS.values()} | {"ndcg", "map", "recip_rank"}
    return pytrec_eval.RelevanceEvaluator(qrels, names).evaluate(results)


def keys(measures):
    return [measure.replace("@", "_at_") for measure in measures]


@given(RESULTS, QRELS)
def test_equals_trec_eval(results, qrels):
    expected = trec_eval(results, qrels)
    scores = scores_per_query(Run.from_dict(results), qrels, list(TREC))
    for key, theirs in zip(keys(TREC), TREC.values(), strict=True):
        wanted = [expected.get(query, {}).get(theirs, 0.0) for query in qrels]
        np.testing.assert_allclose(scores[key], wanted, rtol=0, atol=1e-12, err_msg=key)


@given(RESULTS, QRELS)
def test_equals_ir_measures(results, qrels):
    from ir_measures import AP, RR, P, R, Success, nDCG

    pairs = {"ndcg@3": nDCG @ 3, "map@3": AP @ 3, "recall@2": R @ 2, "precision@5": P @ 5, "hit_rate@1": Success @ 1}
    pairs["mrr"] = RR
    run = Run.from_dict(results)
    means = mean_scores(run, qrels, list(pairs))
    # ir_measures leaves an empty result list out of the run, and cannot take an empty run.
    theirs = ir_measures.calc_aggregate(list(pairs.values()), qrels, {q: row for q, row in results.items() if row})
    for measure, key in zip(pairs.values(), keys(pairs), strict=True):
        assert means[key] == pytest.approx(theirs[measure], abs=1e-12)


def loop(row, grades, k):
    """mrr_at_k and recall_cap_at_k, which trec_eval lacks, by hand."""
    ranking = sorted(row, key=lambda document: (np.float32(row[document]), document), reverse=True)[:k]
    relevant = {document for document, grade in grades.items() if grade > 0}
    ranks = [rank for rank, document in enumerate(ranking, 1) if document in relevant]
    return (1 / ranks[0] if ranks else 0.0), (len(ranks) / min(k, len(relevant)) if relevant else 0.0)


@given(RESULTS, QRELS, st.sampled_from(CUTOFFS))
def test_equals_a_loop(results, qrels, k):
    scores = scores_per_query(Run.from_dict(results), qrels, [f"mrr@{k}", f"recall_cap@{k}"])
    expected = [loop(results.get(query, {}), grades, k) for query, grades in qrels.items()]
    np.testing.assert_allclose(np.stack(list(scores.values()), axis=1), expected, rtol=0, atol=1e-12)


@given(RESULTS, QRELS)
def test_identical_ids_are_ignored_on_request(results, qrels):
    without = {query: {d: s for d, s in row.items() if d != query} for query, row in results.items()}
    scores = scores_per_query(Run.from_dict(results), qrels, ["ndcg@3", "map"], ignore_identical_ids=True)
    expected = scores_per_query(Run.from_dict(without), qrels, ["ndcg@3", "map"])
    assert all((scores[key] == expected[key]).all() for key in scores)


def test_large_tables_in_several_blocks():
    random = np.random.default_rng(0)
    documents = [str(number) for number in random.permutation(30_000)]
    positions = np.stack([random.permutation(3_000)[:40] for _ in range(120)]) * 10
    positions[5, 7:] = -1
    run = Run.from_top_k([f"q{i}" for i in range(120)], documents, positions, random.integers(0, 9, positions.shape))
    qrels = {
        f"q{i}": {
            documents[j]: int(random.integers(0, 3)) for j in [*positions[i % 120, :3], *random.integers(0, 30_000, 5)]
        }
        for i in random.permutation(130)
    }
    expected = trec_eval(run.to_dict(), qrels)
    scores = scores_per_query(run, Judgements.of(qrels, documents), list(TREC))
    for key, theirs in zip(keys(TREC), TREC.values(), strict=True):
        wanted = [expected.get(query, {}).get(theirs, 0.0) for query in qrels]
        np.testing.assert_allclose(scores[key], wanted, rtol=0, atol=1e-12)
    assert 0.1 < scores["ndcg_at_100"].mean() < 0.9


def test_negative_grades_are_not_relevant():
    run = Run.from_dict({"q": {"a": 3.0, "b": 2.0, "c": 1.0}})
    negative = scores_per_query(run, {"q": {"a": -1, "b": 2, "c": 0}}, list(TREC))
    expected = trec_eval(run.to_dict(), {"q": {"a": -1, "b": 2, "c": 0}})["q"]
    assert {key: values[0] for key, values in negative.items()} == pytest.approx(
        {key: expected[theirs] for key, theirs in zip(keys(TREC), TREC.values(), strict=True)}, abs=1e-12
    )
    assert negative["ndcg"][0] == pytest.approx(1 / math.log2(3))


def test_who_counts():
    qrels = {"found": {"a": 1}, "missing": {"a": 1}, "only zeros": {"a": 0}, "nothing": {}}
    run = Run.from_dict({"found": {"a": 1.0}, "unjudged": {"a": 1.0}})
    assert mean_scores(run, qrels, ["ndcg@10"]) == {"ndcg_at_10": pytest.approx(1 / 3)}
    assert scores_per_query(run, qrels, ["R@5"])["recall_at_5"].tolist() == [1, 0, 0]
    assert Judgements.of(qrels, run.documents).query_ids == ["found", "missing", "only zeros"]
    assert mean_scores(Run.from_dict({}), qrels, ["mrr"]) == {"mrr": 0}
    assert mean_scores(run, {}, ["mrr"]) == {"mrr": 0}


def test_wrong_use():
    run = Run.from_dict({"q": {"a": 1.0}})
    with pytest.raises(InputError, match="whole numbers"):
        Judgements.of({"q": {"a": 0.5}}, run.documents)
    with pytest.raises(ValueError, match="another document table"):
        scores_per_query(run, Judgements.of({"q": {"a": 1}}, ["b"]), ["mrr"])
    with pytest.raises(InputError, match="unknown"):
        mean_scores(run, {"q": {"a": 1}}, ["madeup@10"])


def test_rules_say_what_was_done():
    assert rules() == RULES
    assert rules(ignore_identical_ids=True)["identical_ids"] != RULES["identical_ids"]
