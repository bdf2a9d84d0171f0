from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxret.errors import InputError
from jaxret.search.analyzers import analyzer
from jaxret.search.bm25 import BM25

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
    assert scores.dtype == np.float32 and positions.dtype == np.int32


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


def test_saved_and_loaded(tmp_path, capfd):
    texts = ["東京は日本の首都", "猫 と 犬", "", "日本 1990年"]
    index = BM25.build(texts, "ja", k1=1.2, b=0.6)
    BM25.build(["older"], "en").save(tmp_path / "bm25")
    index.save(tmp_path / "bm25")
    again = BM25.load(tmp_path / "bm25")
    assert again.settings == index.settings and again.num_documents == 4
    for mine, theirs in zip(index.top_k(["日本の猫", "1990"], 3), again.top_k(["日本の猫", "1990"], 3), strict=True):
        assert (mine == theirs).all()
    assert capfd.readouterr() == ("", "")


def test_files_are_the_same_in_every_process(tmp_path):
    code = "import sys; from jaxret.search.bm25 import BM25; BM25.build(['a b c d', 'b e f'], 'en').save(sys.argv[1])"
    for seed in "12":
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-c", code, tmp_path / seed], check=True, env=environment)
    for file in (tmp_path / "1").iterdir():
        assert file.read_bytes() == (tmp_path / "2" / file.name).read_bytes()


def test_does_not_wake_jax():
    code = """
import sys
from jaxret.search.bm25 import BM25
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
    BM25.build(["cat"], "en").save(tmp_path / "bm25")
    file = next((tmp_path / "bm25").glob("data*"))
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(InputError, match="Index the corpus again"):
        BM25.load(tmp_path / "bm25")
