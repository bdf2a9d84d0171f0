import numpy as np
import pytest

from jaxret.data import lengths as module
from jaxret.data.lengths import divided, document_lengths, longest_passages
from jaxret.data.tensorflow_cpu import tf
from jaxret.data.text import TextConfig, passage_ids, passage_text

TEXT = TextConfig(passage_max_len=30, title_separator=": ")
QUERIES = {
    "query": tf.constant(["a", "b", "c", "d"]),
    "positives": tf.ragged.constant([[0], [1, 2], [3], [0, 0]], dtype=tf.int64),
    "negatives": tf.ragged.constant([[3, 1], [], [0], [2]], dtype=tf.int64),
}
LENGTHS = np.array([5, 9, 20, 7])


@pytest.fixture
def found(vocabulary, tmp_path):
    def of(titles, texts, fingerprint="f"):
        documents = {"title": tf.constant(titles), "text": tf.constant(texts)}
        return document_lengths(fingerprint, documents, vocabulary, TEXT, tmp_path).tolist()

    return of


def test_lengths_are_those_of_the_ids(found, vocabulary, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 2)
    titles, texts = ["題", "", "猫"], ["の" * 12, "水。", "と" * 80]
    passages = [passage_text(*pair, ": ") for pair in zip(titles, texts, strict=True)]
    expected = [len(ids) for ids in passage_ids(vocabulary, TEXT, passages)]
    assert found(titles, texts) == expected and expected[2] == 30 > expected[0] > expected[1]


def test_lengths_are_worked_out_once(found, monkeypatch):
    first = found([""], ["の"])
    monkeypatch.setattr(module, "passage_ids", lambda *arguments: [[1]])
    assert found([""], ["の"]) == first != [1] == found([""], ["の"], "another source")


def test_the_longest_passage_that_can_be_drawn():
    assert longest_passages(QUERIES, LENGTHS, negatives=True).tolist() == [9, 20, 7, 20]
    assert longest_passages(QUERIES, LENGTHS, negatives=False).tolist() == [5, 20, 7, 5]


def test_every_query_is_in_the_first_bucket_that_holds_it():
    parts = divided(QUERIES, np.array([9, 21, 7, 10]), [6, 9, 20])
    assert [part["query"].numpy().tolist() for part in parts] == [[], [b"a", b"c"], [b"b", b"d"]]
    assert parts[2]["negatives"].to_list() == [[], [2]]
