"""What holds of lexical search by vocabulary alone; the rest is in tests/search/test_exact.py."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxret.errors import InputError
from jaxret.runtime.mesh import device_mesh
from jaxret.search import by_vocabulary
from jaxret.search.exact import ExactSearch
from jaxret.search.vectors import Ragged, Vectors

VOCAB = 40


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(by_vocabulary, "BLOCK", 16)
    monkeypatch.setattr(by_vocabulary, "PORTION", 4)


def lexical(rows):
    """Rows of `{term: weight}`."""
    ids = [np.array(sorted(row), np.int32) for row in rows]
    weights = [np.array([row[term] for term in sorted(row)], np.float32) for row in rows]
    return Vectors(term_ids=Ragged.from_rows(ids), term_weights=Ragged.from_rows(weights))


def drawn(count, seed, longest=30):
    """Random rows, of either sign, a few of them empty, every fifth one a copy of the first."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        terms = random.choice(VOCAB, size=int(random.integers(0, longest)), replace=False)
        rows.append({int(t): float(w) for t, w in zip(terms, random.normal(size=len(terms)), strict=True)})
        rows[-1] = rows[0] if number % 5 == 4 else rows[-1]
    return lexical(rows)


def found(form, corpus, queries, k, **more):
    mesh = device_mesh((-1, 1, 1), jax.devices()[:1])
    return ExactSearch("lexical", corpus, mesh, k, VOCAB, lexical_form=form, **more)(queries)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("count", "k"), [(1, 1), (61, 10), (61, 61), (300, 20)])
def test_both_forms_have_the_same_bits(count, k, dtype):
    corpus, queries = drawn(count, 0), drawn(7, 1)
    scores, positions = found("by_vocabulary", corpus, queries, k, dtype=dtype)
    pairwise = found("pairwise", corpus, queries, k, dtype=dtype)
    np.testing.assert_array_equal(positions, pairwise[1])
    assert scores.tobytes() == pairwise[0].tobytes()
    assert scores.dtype == np.float32 and positions.dtype == pairwise[1].dtype


ROWS = st.lists(st.dictionaries(st.integers(0, 5), st.sampled_from([-2.0, 0.5, 1.0, 3.0])), min_size=1, max_size=40)


@given(ROWS, ROWS, st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_ties_go_by_position_and_documents_without_a_common_term_are_ranked_too(documents, queries, k):
    k = min(k, len(documents))
    scores, positions = found("by_vocabulary", lexical(documents), lexical(queries), k)
    every = np.array([[sum(q[t] * d[t] for t in q.keys() & d.keys()) for d in documents] for q in queries])
    ranked = np.argsort(-every, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(positions, ranked)
    np.testing.assert_array_equal(scores, np.take_along_axis(every, ranked, 1))
    assert not np.signbit(scores[scores == 0]).any()


def test_a_term_beyond_the_vocabulary_is_an_input_error():
    with pytest.raises(InputError, match=r"^term_ids: a document has the term 40, of a vocabulary of 40\. Search with"):
        found("by_vocabulary", lexical([{1: 1.0}, {40: 1.0}]), lexical([{1: 1.0}]), 1)


def test_an_unknown_form_is_an_input_error():
    with pytest.raises(InputError, match=r"^lexical_form: unknown 'hash'\. Choose one of by_vocabulary, pairwise"):
        found("hash", lexical([{1: 1.0}]), lexical([{1: 1.0}]), 1)


def test_small_parts_are_joined_and_large_ones_cut(monkeypatch):
    blocks = []

    def parts(self, *_):
        for start, stop in ((0, 3), (3, 9), (50, 90)):
            yield start, self.part(start, stop)

    monkeypatch.setattr(Vectors, "parts", parts)
    monkeypatch.setattr(by_vocabulary, "_enter", lambda *block: blocks.append(block[-1].tolist()))
    found("by_vocabulary", drawn(100, 0), drawn(1, 1), 1)
    assert sorted(blocks) == [[*range(9)], [*range(50, 66)], [*range(66, 82)], [*range(82, 90)]]
