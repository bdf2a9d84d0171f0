from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxret.data.beir import read_corpus, read_queries
from jaxret.errors import InputError
from jaxret.runtime.checksums import SUMS, seal
from jaxret.search import postings
from jaxret.search.analyzers import analyzer
from jaxret.search.bm25 import BM25
from jaxret.search.bm25 import _bm25s as package

DATA = Path(__file__).parents[2] / "data"
WORDS = st.lists(st.sampled_from(["cat", "dog", "owl", "fox", "日本語", "日本", "1990年", "the", "…"]), max_size=8)
TEXTS = WORDS.map(" ".join)


def lucene(texts, query, language, k1, b):
    """BM25 by its formula, a document at a time."""
    documents = [analyzer(language)(text) for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for term in analyzer(language)(query):
            df = sum(term in other for other in documents)
            frequency = document.count(term)
            if frequency:
                idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
                score += idf * frequency / (frequency + k1 * (1 - b + b * len(document) / mean))
        scores.append(score)
    return scores


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=8),
    query=TEXTS,
    language=st.sampled_from(["ja", "en"]),
    formula=st.sampled_from([(0.9, 0.4), (1.2, 0.75)]),
)
def test_equals_the_formula(texts, query, language, formula):
    assume(any(analyzer(language)(text) for text in texts))
    k1, b = formula
    expected = lucene(texts, query, language, k1, b)
    scores, positions = BM25.build(texts, language, k1=k1, b=b).top_k([query], len(texts))
    found = positions[0] >= 0
    assert sorted(positions[0, found].tolist()) == [i for i, score in enumerate(expected) if score > 0]
    np.testing.assert_allclose(scores[0, found], np.array(expected)[positions[0, found]], rtol=1e-5)
    assert (scores[0, ~found] == 0).all() and (np.diff(scores[0]) <= 0).all()
    assert scores.dtype == np.float32 and positions.dtype == np.int64


@given(texts=st.lists(st.sampled_from(["cat", "cat dog", "dog", "cat cat", "owl fox"]), min_size=3, max_size=12))
def test_best_k_are_the_first_of_all_and_ties_go_by_position(texts):
    index = BM25.build(texts, "en")
    scores, positions = index.top_k(["cat", "dog owl"], len(texts))
    for k in (1, 2, 3):
        fewer = index.top_k(["cat", "dog owl"], k)
        assert (fewer[0] == scores[:, :k]).all() and (fewer[1] == positions[:, :k]).all()
    for row, found in zip(scores.tolist(), positions.tolist(), strict=True):
        ranked = [(-score, position) for score, position in zip(row, found, strict=True) if position >= 0]
        assert ranked == sorted(ranked)


def test_queries_without_known_terms():
    scores, positions = BM25.build(["cat", "dog"], "en").top_k(["", "owl", "cat"], 2)
    assert positions.tolist() == [[-1, -1], [-1, -1], [0, -1]]
    assert (scores[:2] == 0).all() and scores[2, 0] > 0
    assert BM25.build(["cat"], "en").top_k([], 1)[0].shape == (0, 1)


@pytest.mark.parametrize("part_terms", [1, 6, 1000])
@pytest.mark.parametrize("held", [1, None])
def test_written_and_loaded(tmp_path, capfd, monkeypatch, part_terms, held):
    texts, asked = ["東京は日本の首都", "猫 と 犬", "", "日本 1990年"], ["日本の猫", "1990", "", "1990"]
    index = BM25.build(texts, "ja", k1=1.2, b=0.6)
    BM25.write(tmp_path / "bm25", ["older"], "en")
    monkeypatch.setattr(postings, "PART_TERMS", part_terms)
    BM25.write(tmp_path / "bm25", texts, "ja", k1=1.2, b=0.6)
    again = BM25.load(tmp_path / "bm25", held)
    assert again.settings == index.settings and again.num_documents == 4
    assert len(again.starts) == {1: 5, 6: 3, 1000: 2}[part_terms], "texts are not cut"
    for mine, theirs in zip(index.top_k(asked, 3), again.top_k(asked, 3), strict=True):
        assert (mine == theirs).all()
    pairs = [(query, position) for query in asked for position in (3, 0, 1)]
    queries, positions = zip(*pairs, strict=True)
    expected = index.scores(queries, positions)
    assert (again.scores(queries, positions) == expected).all() and (expected > 0).sum() == 4
    assert [path.name for path in tmp_path.iterdir()] == ["bm25"] and capfd.readouterr() == ("", "")


def test_what_it_counts_lies_where_it_goes_with_a_killed_process(tmp_path, monkeypatch):
    beside = []

    def counted(texts, terms_of, scratch):
        beside.extend(os.listdir(tmp_path))
        return postings.count_postings(texts, terms_of, scratch)

    monkeypatch.setattr("jaxret.search.bm25.count_postings", counted)
    BM25.write(tmp_path / "bm25", ["a b", "b"], "en")
    assert len(beside) == 1 and beside[0].startswith(".bm25.")
    names = {path.name for path in (tmp_path / "bm25").iterdir()}
    assert names == {SUMS, "settings.json", "part-00000"}, "and none of it stays"


def test_parts_are_the_package_over_all_texts(monkeypatch):
    bm25s = package()  # without JAX
    corpus = read_corpus(DATA / "jsquad")
    queries, language = read_queries(DATA / "jsquad").texts[:200], "ja"
    terms = [analyzer(language)(text) for text in corpus.texts]
    whole = bm25s.BM25(k1=0.9, b=0.4, method="lucene", backend="numpy")
    whole.index(terms, show_progress=False, create_empty_token=False)
    monkeypatch.setattr(postings, "PART_TERMS", sum(map(len, terms)) // 5)
    index = BM25.build(corpus.texts, language)
    assert len(index.starts) == 7
    found = index.top_k(queries, len(corpus))
    for query, scores, positions in zip(queries, *found, strict=True):
        expected = whole.get_scores(analyzer(language)(query))
        order = np.lexsort((np.arange(len(corpus)), -expected))
        order = order[expected[order] > 0]
        assert positions[: len(order)].tolist() == order.tolist() and (positions[len(order) :] == -1).all()
        assert (scores[: len(order)] == expected[order]).all(), "to the bit"


def test_files_are_the_same_in_every_process(tmp_path):
    code = "import sys; from jaxret.search.bm25 import BM25; BM25.write(sys.argv[1], ['a b c d', 'b e f'], 'en')"
    for seed in "12":
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-c", code, tmp_path / seed], check=True, env=environment)
    files = [file for file in (tmp_path / "1").rglob("*") if file.is_file()]
    assert len(files) > 4
    for file in files:
        assert file.read_bytes() == (tmp_path / "2" / file.relative_to(tmp_path / "1")).read_bytes()


def test_does_not_wake_jax():
    code = """
import sys
from jaxret.search.bm25 import BM25
from jaxret.search.bm25 import _bm25s as package
assert "bm25s" not in sys.modules
BM25.build(["a"], "en").top_k(["a"], 1)
assert "jax" not in sys.modules
import jax, bm25s
assert bm25s.selection.JAX_IS_AVAILABLE is False
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


@pytest.mark.parametrize("k", [0, 3, -1])
def test_k_must_fit_the_corpus(k):
    with pytest.raises(InputError, match=f"{k} results of a corpus of 2 documents. Give 1 to 2"):
        BM25.build(["cat", "dog"], "en").top_k(["cat"], k)


@pytest.mark.parametrize("texts", [[], ["", "…"]])
def test_nothing_to_index(texts):
    with pytest.raises(InputError, match=f"none of its {len(texts)} texts"):
        BM25.build(texts, "en")


def test_broken_folders(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        BM25.load(tmp_path / "none")
    BM25.write(tmp_path / "bm25", ["cat"], "en")
    file = next((tmp_path / "bm25").rglob("data*"))
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(InputError, match=rf"^{file}: missing or damaged.*Index the corpus again"):
        BM25.load(tmp_path / "bm25").top_k(["cat"], 1)
    seal(tmp_path / "bm25")
    with pytest.raises(InputError, match=r"is no whole BM25 index.*Index the corpus again"):
        BM25.load(tmp_path / "bm25").top_k(["cat"], 1)
    settings_of(tmp_path / "bm25", dict.clear)
    with pytest.raises(InputError, match=r"is no whole BM25 index.*Index the corpus again"):
        BM25.load(tmp_path / "bm25")
    (tmp_path / "bm25" / SUMS).unlink()
    with pytest.raises(InputError, match=rf"{SUMS}: no such file.*Index the corpus again"):
        BM25.load(tmp_path / "bm25")


def test_a_part_is_compared_once_however_often_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(postings, "PART_TERMS", 2)
    BM25.write(tmp_path / "bm25", ["a b", "b c", "c d"], "en")
    index = BM25.load(tmp_path / "bm25", parts_held=1)
    assert len(index.starts) == 4 and index.top_k(["b"], 3)[1].tolist() == [[0, 1, -1]]
    for file in (tmp_path / "bm25").glob("part-*/params*"):
        file.write_text(file.read_text() + " ")
    assert index.top_k(["c"], 3)[1].tolist() == [[1, 2, -1]]
    with pytest.raises(InputError, match=r"part-00000/params\.index\.json: missing or damaged"):
        BM25.load(tmp_path / "bm25").top_k(["c"], 1)


@pytest.mark.parametrize("held", [1, 2, None])
def test_no_more_parts_are_held_than_asked_for(tmp_path, monkeypatch, held):
    alive, load = weakref.WeakSet(), package().BM25.load

    def loaded(*args, **kwargs):
        part = load(*args, **kwargs)
        alive.add(part)
        return part

    monkeypatch.setattr(package().BM25, "load", loaded)
    monkeypatch.setattr(postings, "PART_TERMS", 2)
    BM25.write(tmp_path / "bm25", ["a b", "b c", "c d"], "en")
    index = BM25.load(tmp_path / "bm25", held)
    for _ in range(2):
        assert index.top_k(["b"], 3)[1].tolist() == [[0, 1, -1]]
        assert len(alive) == (held or 3)


def test_an_index_keeps_its_analyzer(tmp_path):
    texts = ["two cats", "a category", "letters cat"]
    BM25.write(tmp_path / "bm25", texts, "en", "words+letter-3-grams")
    index, built = BM25.load(tmp_path / "bm25"), BM25.build(texts, "en", "words+letter-3-grams")
    assert index.settings == built.settings and index.analyzer.name == "words+letter-3-grams"
    assert [a.tolist() for a in index.top_k(["cat"], 3)] == [a.tolist() for a in built.top_k(["cat"], 3)]
    assert index.top_k(["cat"], 3)[1].tolist() != BM25.build(texts, "en").top_k(["cat"], 3)[1].tolist()


def settings_of(folder, change):
    record = json.loads((folder / "settings.json").read_text())
    change(record)
    (folder / "settings.json").write_text(json.dumps(record))
    seal(folder)


def test_other_versions_are_refused(tmp_path):
    BM25.write(tmp_path / "bm25", ["two cats"], "en")
    settings_of(tmp_path / "bm25", lambda record: record["versions"].update(PyStemmer="1.0"))
    with pytest.raises(InputError, match=r"made with PyStemmer 1\.0, and here is"):
        BM25.load(tmp_path / "bm25")
    settings_of(tmp_path / "bm25", lambda record: record.update(analyzer="porter"))
    with pytest.raises(InputError, match="porter"):
        BM25.load(tmp_path / "bm25")
