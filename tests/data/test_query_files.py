from __future__ import annotations

import gzip

import pytest

from jaxret.data.query_files import queries_from
from jaxret.errors import InputError

EXPECTED = (["q2", "q1"], ["two cats", "a\tdog"])


def test_lines_of_json_or_with_tabs(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"_id": "q2", "text": "two cats"}\n\n{"_id": "q1", "text": "a\\tdog"}\n')
    (tmp_path / "q.tsv.gz").write_bytes(gzip.compress(b"q2\ttwo cats\r\nq1\ta\tdog\n"))
    assert queries_from(tmp_path / "q.jsonl") == EXPECTED
    assert queries_from(tmp_path / "q.tsv.gz") == EXPECTED


def test_a_folder_and_its_split(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "x"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q2", "text": "two"}\n{"_id": "q1", "text": "one"}\n')
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td\t1\n")
    assert queries_from(tmp_path) == (["q2", "q1"], ["two", "one"])
    assert queries_from(tmp_path, "test") == (["q1"], ["one"])
    with pytest.raises(InputError, match="no BEIR folder"):
        queries_from(tmp_path / "queries.jsonl", "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no queries"),
        ("q1\tone\nno tab\n", ":2.*qid<TAB>text"),
        ("q1\tone\nq2\t \n", ":2"),
        ("q1\tone\nq1\ttwo\n", ":2.*q1"),
        ('{"_id": "q1"}\n', ":1.*text"),
    ],
)
def test_bad_lines(tmp_path, text, message):
    (tmp_path / "q").write_text(text)
    with pytest.raises(InputError, match=message):
        queries_from(tmp_path / "q")
