import dataclasses

import jax
import numpy as np
import pytest

from jaxret.data.beir import read_corpus
from jaxret.data.corpus import Corpus
from jaxret.errors import InputError
from jaxret.runtime.mesh import device_mesh
from jaxret.search.corpus import (
    CLAIM,
    encode_corpus,
    encoded_now,
    open_store,
    passage_texts,
    store_ids,
    store_positions,
)
from jaxret.search.dtypes import decoded
from jaxret.search.encode import TextEncoder
from jaxret.search.folder import Folder
from jaxret.search.store import MANIFEST, has_shard, joined


@pytest.fixture(scope="module")
def corpus(beir_of_animals):
    whole = read_corpus(beir_of_animals)
    return Corpus(whole.ids[:20], whole.titles[:20], whole.texts[:20])


@pytest.fixture(scope="module")
def encoder(model, random_params):
    params = random_params(model.abstract_params())
    return TextEncoder(model, params, device_mesh((1, 1, 1), jax.devices()[:1]), batch_tokens=160)


def encoded(encoder, corpus, store, progress=None, **settings):
    """In shards of eight."""
    return encode_corpus(encoder, corpus, store, progress, shard_documents=8, **settings)


def opened(store, encoder, corpus):
    """Ids and vectors of a store."""
    stored = open_store(store, encoder, corpus)
    return stored.ids_at(range(len(stored))), joined([stored.shard(number) for number in range(len(stored.starts) - 1)])


def assert_equal(found, expected):
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
    for name in ("tokens", "term_ids", "term_weights"):
        np.testing.assert_array_equal(getattr(found, name).offsets, getattr(expected, name).offsets)
        np.testing.assert_allclose(getattr(found, name).values, getattr(expected, name).values, atol=1e-5)


def test_documents_lie_in_descending_order_of_their_ids():
    corpus = Corpus(["a", "c", "b10", "b2"], ["", "C", "", ""], ["one", "two", "three", " four "])
    ids = list(store_ids(corpus))
    assert ids == sorted(corpus.ids, reverse=True) and ids[1:3] == store_ids(corpus)[1:3]
    assert dict(store_positions(corpus)) == {name: position for position, name in enumerate(ids)}
    assert list(passage_texts(corpus, ": ")) == ["C: two", ":  four", ": three", ": one"]


def test_a_store_holds_the_vectors_of_the_corpus_in_order(encoder, corpus, tmp_path):
    ids, vectors = opened(encoded(encoder, corpus, tmp_path / "store"), encoder, corpus)
    assert ids == sorted(corpus.ids, reverse=True)
    assert len(list((tmp_path / "store").glob("shard-*"))) == 3
    now, expected = encoded_now(encoder, corpus)
    assert now == ids
    assert_equal(vectors, expected)
    one = encoder.passages([passage_texts(corpus, " ")[11]])
    np.testing.assert_allclose(vectors.dense[11], one.dense[0], atol=1e-5)


def test_a_killed_run_continues(encoder, corpus, tmp_path, monkeypatch):
    store, done = tmp_path / "store", []

    def killed_in_the_second_shard(count):
        done.append(count)
        if sum(done) > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoded(encoder, corpus, store, killed_in_the_second_shard)
    assert has_shard(Folder(store), 0) and not has_shard(Folder(store), 1)
    with pytest.raises(InputError, match="no complete store"):
        open_store(store, encoder, corpus)
    half = store / "shard-00001" / "dense" / "c" / "0" / "0"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")

    texts, passages = [], encoder.passages
    monkeypatch.setattr(encoder, "passages", lambda t, progress=None: texts.extend(t) or passages(t, progress))
    counts = []
    encoded(encoder, corpus, store, counts.append)
    assert texts == passage_texts(corpus, " ")[8:], "the finished shard must not be encoded again"
    assert sum(counts) == len(corpus)
    texts.clear()
    encoded(encoder, corpus, store)
    assert not texts, "a complete store is left as it is"
    monkeypatch.undo()
    assert_equal(opened(store, encoder, corpus)[1], encoded_now(encoder, corpus)[1])


def others(model, params, encoder, corpus):
    """What differs, with an encoder or a corpus that differs in it."""
    moved = jax.tree.map(lambda x: x + 1e-3, params)
    yield "model", TextEncoder(model, moved, encoder.mesh), corpus
    text = dataclasses.replace(model.text, passage_prefix="p: ")
    yield "model and another text", TextEncoder(dataclasses.replace(model, text=text), params, encoder.mesh), corpus
    yield "corpus", encoder, dataclasses.replace(corpus, texts=[*corpus.texts[:-1], "Something else."])


def test_another_model_or_corpus_is_refused(model, encoder, corpus, tmp_path):
    store = tmp_path / "store"
    encoded(encoder, corpus, store)
    files = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    for name, other, documents in others(model, encoder.params, encoder, corpus):
        with pytest.raises(InputError, match=rf"{CLAIM}: made with another {name}\."):
            encoded(other, documents, store)
        with pytest.raises(InputError, match=rf"{MANIFEST}: made with another {name}\."):
            open_store(store, other, documents)
    assert files == {path: path.stat().st_mtime_ns for path in store.rglob("*")}


def test_another_dtype_or_size_of_shards_is_refused(encoder, corpus, tmp_path):
    store = encoded(encoder, corpus, tmp_path / "store", dtype="int8")
    with pytest.raises(InputError, match=rf"{CLAIM}: made with another dtype\."):
        encoded(encoder, corpus, store)
    with pytest.raises(InputError, match=rf"{CLAIM}: made with another shard_documents\."):
        encode_corpus(encoder, corpus, store, dtype="int8", shard_documents=9)
    with pytest.raises(InputError, match=r"^dtype: unknown 'half'"):
        encoded(encoder, corpus, tmp_path / "other", dtype="half")
    assert not (tmp_path / "other").exists()
    found, expected = decoded(opened(store, encoder, corpus)[1]), encoded_now(encoder, corpus)[1]
    np.testing.assert_allclose(found.dense, expected.dense, atol=np.abs(expected.dense).max() / 250)
    np.testing.assert_allclose(
        found.tokens.values, expected.tokens.values, atol=np.abs(expected.tokens.values).max() / 250
    )
