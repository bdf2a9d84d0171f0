from __future__ import annotations

import gzip

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from jaxret.errors import InputError
from jaxret.search.run_files import read_run, write_run
from jaxret.search.runs import Run


def flat(run):
    return [(query, list(row.items())) for query, row in run.to_dict().items()]


def text_of(path, run, tag="t"):
    write_run(run, path, tag)
    return path.read_text(encoding="utf-8")


def test_trec_lines(tmp_path):
    run = Run.from_dict({"q2": {"d1": 1.0, "d2": 1.5}, "q1": {"d3": -2e-7, "d10": 0.0}, "none": {}})
    assert text_of(tmp_path / "run.trec", run) == (
        "q2 Q0 d2 1 1.500000 t\nq2 Q0 d1 2 1.000000 t\nq1 Q0 d3 1 0.000000 t\nq1 Q0 d10 2 0.000000 t\n"
    )


def test_rounding_makes_ties(tmp_path):
    lines = text_of(tmp_path / "run", Run.from_dict({"q": {"a": 0.1000002, "b": 0.1000001, "c": 0.1}})).splitlines()
    assert [line.split()[2:4] for line in lines] == [["c", "1"], ["b", "2"], ["a", "3"]]


SCORES = (
    st.floats(-40, 40, width=32)
    | st.integers(-30, 30).map(lambda n: n * 2.5e-7)
    | st.floats(-(2.0**40), 2.0**40, width=32)
)
RESULTS = st.dictionaries(st.sampled_from("qrs"), st.dictionaries(st.sampled_from("abcdefgh"), SCORES, min_size=1))


@given(results=RESULTS)
def test_ranks_agree_with_reading_back_and_trec_eval(tmp_path_factory, results):
    path = tmp_path_factory.getbasetemp() / "round-trip"
    text = text_of(path, Run.from_dict(results))
    back = read_run(path)
    written = [line.split() for line in text.splitlines()]
    assert [(f[0], f[2]) for f in written] == [(query, d) for query, row in flat(back) for d, _ in row]
    assert text_of(path, back) == text
    for query, _, document, rank, _, _ in written:
        qrels = {query: {document: 1}}
        run = {q: row for q, row in pytrec_eval.parse_run(text.splitlines()).items() if q == query}
        reciprocal = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(run)[query]["recip_rank"]
        assert reciprocal == 1 / int(rank)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q Q0 a 7 1.5 t\nq\tQ0\tb  8 2e0   t\r\n\n", {"q": {"b": 2.0, "a": 1.5}}),
        ("q1\td 1\t0.5\nq2\td\t1\nq1\td2\t1\n", {"q1": {"d2": 1.0, "d 1": 0.5}, "q2": {"d": 1.0}}),
        ("q\ta\t1\nq\tb\t2\n", {"q": {"a": -1.0, "b": -2.0}}),
        ("q\ta\t1\t30.5\nq\tb\t2\t31.5\n", {"q": {"b": 31.5, "a": 30.5}}),
        ("", {}),
    ],
)
def test_dialects(tmp_path, text, expected):
    with gzip.open(tmp_path / "run.gz", "wb") as file:
        file.write(text.encode())
    assert flat(read_run(tmp_path / "run")) == [(query, list(row.items())) for query, row in expected.items()]


def test_dialect_by_name(tmp_path):
    (tmp_path / "run").write_text("q\ta\t1\nq\tb\t2\n")
    assert read_run(tmp_path / "run", "tsv").to_dict() == {"q": {"b": 2.0, "a": 1.0}}
    with pytest.raises(InputError, match="trec, tsv, colbert"):
        read_run(tmp_path / "run", "csv")


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("q Q0 a 1 1.0 t\nq Q0 b 2 t\n", ":2:", "5 fields"),
        ("q Q0 a 1 high t\n", ":1:", "'high' is not a finite number"),
        ("q Q0 a 1 nan t\n", ":1:", "'nan' is not a finite number"),
        ("q Q0 a 1 2 t\n\nr Q0 a 1 2 t\nq Q0 b 1 3 t\nq Q0 a 2 1 t\n", ":5:", "'a' occurs twice"),
        ("query-id\tcorpus-id\tscore\n", ":1:", "'score' is not a finite number"),
        ("q\ta\t1\nq\tb\t0.5\n", ":2:", "rank '0.5'"),
        ("q\ta\t0.5\nq\tb\n", ":2:", "2 fields"),
        ("q\ta\t1\nq\n", ":2:", "1 fields"),
        ("q a 1\n", ":1:", "3 fields"),
    ],
)
def test_bad_lines(tmp_path, text, place, problem):
    (tmp_path / "run").write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        read_run(tmp_path / "run")
    assert f"run{place}" in str(caught.value)


@pytest.mark.parametrize(
    ("results", "tag", "name"),
    [
        ({"q": {"a b": 1}}, "t", "'a b'"),
        ({"q\u30001": {"a": 1}}, "t", "query id"),
        ({"q": {"": 1}}, "t", "''"),
        ({"q": {"a": 1}}, "my run", "tag"),
    ],
)
def test_ids_with_spaces_are_not_written(tmp_path, results, tag, name):
    (tmp_path / "run").write_text("old")
    with pytest.raises(InputError, match=name):
        write_run(Run.from_dict(results), tmp_path / "run", tag)
    assert (tmp_path / "run").read_text() == "old"


def test_unused_ids_may_hold_spaces(tmp_path):
    run = Run.from_top_k(["q"], ["a b", "c"], np.array([[1]]), np.array([[1.0]]))
    assert text_of(tmp_path / "run", run) == "q Q0 c 1 1.000000 t\n"
