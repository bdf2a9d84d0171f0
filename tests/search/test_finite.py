"""NaN and infinite numbers: found where vectors are written and searched, with the name of the text."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxret.data.corpus import Corpus
from jaxret.errors import InputError
from jaxret.eval.systems import model_runs
from jaxret.nn.retriever import Embeddings, Terms
from jaxret.runtime.mesh import device_mesh
from jaxret.search.corpus import encoded_now
from jaxret.search.dtypes import stored_as
from jaxret.search.encode import TextEncoder, _one_text
from jaxret.search.exact import ExactSearch
from jaxret.search.folder import Folder
from jaxret.search.rankers import ModelRanker
from jaxret.search.reduced_dense import ReducedDense
from jaxret.search.store import has_shard, write_shard
from jaxret.search.vectors import Ragged, Vectors, check_finite
from tests.search.reduced_cases import both, normal, small_blocks  # noqa: F401

ARRAYS = ("dense", "tokens", "term_weights", "dense_scales", "token_scales")
IDS = ["d", "c", "b", "a"]


def vectors(name=None, value=np.nan, row=2):
    """Of four texts, the second without a token; in one array a number of a text is another value."""
    offsets = np.array([0, 2, 2, 4, 5])
    found = Vectors(
        np.ones((4, 3), np.float32),
        Ragged(np.ones((5, 2), np.float32), offsets),
        Ragged(np.arange(5, dtype=np.int32), offsets),
        Ragged(np.ones(5, np.float32), offsets),
        np.ones(4, np.float32),
        Ragged(np.ones(5, np.float32), offsets),
    )
    if name is not None:
        part = getattr(found, name)
        ragged = isinstance(part, Ragged)
        (part.values if ragged else part)[offsets[row + 1] - 1 if ragged else row] = value
    return found


def plain(*broken):
    return dataclasses.replace(vectors(*broken), dense_scales=None, token_scales=None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ARRAYS)
def test_the_text_is_named(name, value, monkeypatch):
    monkeypatch.setattr("jaxret.search.vectors.CHECKED_ROWS", 3)
    check_finite(vectors(), "document", IDS)
    for row, text in ((0, "d"), (2, "b"), (3, "a")):
        broken = vectors(name, value, row)
        with pytest.raises(InputError, match=rf"^document '{text}': {name} holds NaN or an infinite number\. Look for"):
            check_finite(broken, "document", IDS)
        with pytest.raises(InputError, match=rf"^query {row}: {name} holds"):
            check_finite(broken, "query")


def test_nothing_and_integers_are_finite():
    check_finite(vectors().part(0, 0), "query")
    check_finite(Vectors(dense=np.full((2, 3), 127, np.int8)), "query")


@pytest.mark.parametrize(("dtype", "value"), [("float32", np.nan), ("bfloat16", 3.4e38), ("int8", np.nan)])
@pytest.mark.parametrize("name", ["dense", "tokens", "term_weights"])
def test_no_store_takes_them(tmp_path, name, dtype, value):
    broken = plain(name, np.inf if name == "term_weights" else value)
    with pytest.raises(InputError, match=r"^document 'b': (\w+) holds NaN or an infinite number"):
        write_shard(Folder(tmp_path), 0, IDS, stored_as(broken, dtype))
    assert not has_shard(Folder(tmp_path), 0)


@pytest.mark.parametrize(
    ("mode", "name"), [("dense", "dense"), ("multi_vector", "tokens"), ("lexical", "term_weights")]
)
def test_no_exact_search_takes_them(mode, name):
    mesh = device_mesh((1, 1, 1), jax.devices()[:1])
    with pytest.raises(InputError, match=rf"^document 2: {name} holds"):
        ExactSearch(mode, plain(name), mesh, 1, 5)
    with pytest.raises(InputError, match=rf"^query 2: {name} holds"):
        ExactSearch(mode, plain(), mesh, 1, 5)(plain(name))


def test_queries_whose_scores_overflow_are_searched_in_float32():
    corpus, queries = Vectors(dense=normal(300, 1)), Vectors(dense=np.full((11, 24), 3e38, np.float32))
    scan, found, expected = both("dense", corpus, queries, 5)
    assert isinstance(scan, ReducedDense) and scan.repeated == 11
    assert not np.isfinite(expected[0]).all()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_head_that_makes_nan_is_not_one_that_finds_no_term():
    weights = np.array([[0, np.nan, 0.5]], np.float32)
    for terms in (Terms(weights, None, 3), Terms(weights, np.array([[0, 1, 2]], np.int32), 3)):
        _, _, ids, kept = _one_text(Embeddings(None, terms, None, None), 0)
        np.testing.assert_array_equal(ids, [1, 2])
        np.testing.assert_array_equal(kept, [np.nan, 0.5])


def test_ids_are_named_where_they_are_known(model, random_params, monkeypatch):
    encoder = TextEncoder(model, random_params(model.abstract_params()), device_mesh((1, 1, 1), jax.devices()[:1]))
    for side in ("queries", "passages"):
        monkeypatch.setattr(encoder, side, lambda *_: plain("tokens"))
    corpus = Corpus(IDS, [""] * 4, ["text"] * 4)
    with pytest.raises(InputError, match=r"^document 'b': tokens holds"):
        encoded_now(encoder, corpus)
    for search in (
        lambda: model_runs(encoder, (IDS, plain()), ["q0", "q1", "q2", "q3"], ["text"] * 4, ["dense"], 1),
        lambda: ModelRanker(encoder, "dense").top_k(["q0", "q1", "q2", "q3"], ["text"] * 4, 1),
    ):
        with pytest.raises(InputError, match=r"^query 'q2': tokens holds"):
            search()
