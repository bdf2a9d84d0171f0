"""Systems that rank and score: each against its own plain counterpart."""

from __future__ import annotations

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from jaxret.data.beir import BeirFolder
from jaxret.data.corpus import Corpus
from jaxret.errors import InputError
from jaxret.ops.maxsim import RULES
from jaxret.runtime.mesh import device_mesh
from jaxret.search import corpus as corpus_module
from jaxret.search.bm25 import BM25
from jaxret.search.corpus import encode_corpus, open_store, passage_texts, store_ids
from jaxret.search.embedder import Embedder
from jaxret.search.encode import TextEncoder
from jaxret.search.exact import ExactSearch
from jaxret.search.pairs import TOKEN_RULES, Pair, fused_scores, vector_scores
from jaxret.search.rankers import BM25Ranker, ModelRanker, RunRanker
from jaxret.search.run_files import write_run
from jaxret.search.runs import Run
from jaxret.search.store import joined
from jaxret.search.vectors import Ragged, Vectors

MODES = ("dense", "lexical", "multi_vector")
QUERIES = {"q1": "where is the cat?", "q2": "bread, rain and a hen"}


@pytest.fixture(scope="module")
def corpus(beir_of_animals) -> Corpus:
    """16 documents of about one length, which keeps the programs few."""
    whole = BeirFolder(beir_of_animals).corpus
    rows = [row for row, name in enumerate(whole.ids) if name[-1] in "03"]
    return Corpus(*([column[row] for row in rows] for column in (whole.ids, whole.titles, whole.texts)))


@pytest.fixture(scope="module")
def one_device():
    return device_mesh((1, 1, 1), jax.devices()[:1])


@pytest.fixture(scope="module")
def encoder(model, random_params, one_device) -> TextEncoder:
    return TextEncoder(model, random_params(model.abstract_params()), one_device)


@pytest.fixture(scope="module")
def store(encoder, corpus, tmp_path_factory):
    """Encoded in two shards, each with fewer documents than are asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "SHARD_DOCUMENTS", 8)
        return encode_corpus(encoder, corpus, tmp_path_factory.mktemp("model") / "store")


def every_pair(corpus) -> list[Pair]:
    columns = list(zip(corpus.ids, corpus.titles, corpus.texts, strict=True))
    return [Pair(query, text, *column) for query, text in QUERIES.items() for column in columns]


@pytest.mark.parametrize("mode", MODES)
def test_a_model_ranks_shard_by_shard_as_it_ranks_the_whole(encoder, corpus, store, mode):
    k = 10
    found = ModelRanker(encoder, mode, corpus, store).top_k(list(QUERIES), list(QUERIES.values()), k)
    stored = open_store(store, encoder, corpus)
    ids, vectors = stored.ids_at(range(len(stored))), joined([stored.shard(0), stored.shard(1)])
    search = ExactSearch(mode, vectors, encoder.mesh, k, encoder.model.config.encoder.vocab_size)
    scores, positions = search(encoder.queries(list(QUERIES.values())))
    expected = Run.from_top_k(list(QUERIES), ids, positions, scores)
    assert [found.documents[i] for i in found.indices] == [expected.documents[i] for i in expected.indices]
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_a_models_scores_of_pairs_are_those_of_its_ranking(encoder, corpus, store, mode, monkeypatch):
    monkeypatch.setattr("jaxret.search.rankers.PAIRS_AT_ONCE", 20)
    stored, pairs = ModelRanker(encoder, mode, corpus, store), every_pair(corpus)
    ranked = stored.top_k(list(QUERIES), list(QUERIES.values()), len(corpus)).to_dict()
    expected = [ranked[pair.query_id][pair.document_id] for pair in pairs]
    np.testing.assert_allclose(stored.scores(pairs), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ModelRanker(encoder, mode).scores(pairs), expected, rtol=1e-5, atol=1e-6)
    assert stored.scores([]).shape == (0,)


@pytest.mark.parametrize("rule", RULES)
def test_scores_of_vectors_equal_similarity_of_the_two_alone(model, one_device, rule):
    random = np.random.default_rng(0)
    config = dataclasses.replace(model.config, maxsim=rule)
    embedder = Embedder(dataclasses.replace(model, config=config), None, one_device)

    def alone(tokens: int, terms: int) -> Vectors:
        ids = np.sort(random.choice(20, terms, replace=False)).astype(np.int32)
        weights = random.random(terms).astype(np.float32)
        matrix = random.normal(size=(tokens, 6)).astype(np.float32)
        dense = random.normal(size=(1, 8)).astype(np.float32)
        return Vectors(dense, *(Ragged.from_rows([part]) for part in (matrix, ids, weights)))

    def together(parts: list[Vectors]) -> Vectors:
        columns = [[getattr(part, name) for part in parts] for name in ("tokens", "term_ids", "term_weights")]
        return Vectors(np.concatenate([part.dense for part in parts]), *map(Ragged.joined, columns))

    queries, passages = [alone(3, 9), alone(1, 4)], [alone(4, 15), alone(1, 2)]
    rows = [(0, 0), (1, 0), (0, 1), (1, 1)]
    for mode in MODES:
        expected = [
            embedder.similarity(queries[q].padded(config), passages[d].padded(config), mode)[0, 0] for q, d in rows
        ]
        found = vector_scores(together(queries), together(passages), rows, mode, rule)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "settings"),
    [("multi_vector", {"maxsim": "bge_m3"}), ("dense", {"similarity": "cosine", "normalize": False})],
)
def test_scores_and_ranking_follow_the_models_own_rules(encoder, corpus, tmp_path, mode, settings):
    """BGE-M3 divides MaxSim by the query's tokens; some dense models have vectors of any length, and mean cosines."""
    model = dataclasses.replace(encoder.model, config=dataclasses.replace(encoder.model.config, **settings))
    embedder = Embedder(model, encoder.params, encoder.mesh)
    for_search = TextEncoder(model.for_search(), encoder.params, encoder.mesh)
    few = Corpus(corpus.ids[:3], corpus.titles[:3], corpus.texts[:3])
    ranker = ModelRanker(for_search, mode, few, encode_corpus(for_search, few, tmp_path / "store"))
    pairs = every_pair(few)
    documents = [{"title": title, "text": text} for title, text in zip(few.titles, few.texts, strict=True)]
    queries = embedder.encode_query(list(QUERIES.values()))
    expected = embedder.similarity(queries, embedder.encode_document(documents), mode).ravel()
    np.testing.assert_allclose(ranker.scores(pairs), expected, rtol=1e-4)
    ranked = ranker.top_k(list(QUERIES), list(QUERIES.values()), len(few)).to_dict()
    np.testing.assert_allclose([ranked[p.query_id][p.document_id] for p in pairs], expected, rtol=1e-4)


def test_every_maxsim_rule_has_one_for_pairs():
    assert TOKEN_RULES.keys() == RULES.keys()


def test_bm25(corpus):
    ranker, index = BM25Ranker(corpus, "en"), BM25.build(passage_texts(corpus, " "), "en")
    scores, positions = index.top_k(list(QUERIES.values()), len(corpus))
    expected = Run.from_top_k(list(QUERIES), store_ids(corpus), positions, scores).to_dict()
    assert ranker.top_k(list(QUERIES), list(QUERIES.values()), len(corpus)).to_dict() == expected
    pairs = every_pair(corpus)
    assert ranker.scores(pairs).tolist() == [expected[p.query_id].get(p.document_id, 0.0) for p in pairs]
    assert 0.0 in ranker.scores(pairs)
    with pytest.raises(InputError, match="'cat9' is not in the corpus"):
        ranker.scores([Pair("q1", "cat", "cat9", "", "")])


@pytest.mark.parametrize(("missing", "other"), [("none", np.nan), ("lowest", 1.0)])
def test_a_run_file(tmp_path, missing, other):
    run = Run.from_dict({"q1": {"a": 1.0, "b": 3.0, "c": 2.0}, "q2": {"b": 0.5}, "q0": {}})
    write_run(run, tmp_path / "run.trec")
    ranker = RunRanker(tmp_path / "run.trec", missing)
    found = ranker.top_k(["q2", "unknown", "q1"], ["", "", ""], 2)
    assert found.to_dict() == {"q2": {"b": 0.5}, "unknown": {}, "q1": {"b": 3.0, "c": 2.0}}
    assert list(found.to_dict()["q1"]) == ["b", "c"]
    pairs = [Pair(query, "", name, "", "") for query, name in (("q1", "a"), ("q1", "z"), ("q2", "b"), ("q9", "a"))]
    np.testing.assert_array_equal(ranker.scores(pairs), np.array([1.0, other, 0.5, np.nan], np.float32))


def test_wrong_input(encoder, corpus, store, tmp_path):
    fewer = Corpus(corpus.ids[:-1], corpus.titles[:-1], corpus.texts[:-1])
    with pytest.raises(InputError, match="another corpus"):
        ModelRanker(encoder, "dense", fewer, store)
    with pytest.raises(InputError, match=r"no 'sparse'.*dense, lexical, multi_vector"):
        ModelRanker(encoder, "sparse")
    with pytest.raises(InputError, match="unknown 'zero'"):
        RunRanker(tmp_path / "run.trec", "zero")
    spoiled = shutil.copytree(store, tmp_path / "spoiled")
    file = spoiled / "shard-00001" / "dense" / "c" / "0" / "0"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(InputError, match=rf"^{file}: damaged"):
        ModelRanker(encoder, "dense", corpus, spoiled).top_k(["q"], ["a cat"], 1)


def test_fused_scores_normalise_within_each_list():
    a, b = np.array([1, 3, 2, 10, 20], np.float32), np.array([0, 0, 4, 2, 1], np.float32)
    groups = np.array([0, 0, 0, 1, 1])
    halves = fused_scores([a, b], groups, [0.5, 0.25], "min_max")
    np.testing.assert_allclose(halves, [0, 0.5, 0.25 + 0.25, 0.25, 0.5])
    np.testing.assert_allclose(fused_scores([a, b], groups, [1, -2], "none"), a - 2 * b)
    assert (fused_scores([a], groups, [1], "none") == a).all()
    z = fused_scores([a], groups, [2], "z_score")
    np.testing.assert_allclose(
        z, 2 * np.array([-1.5, 1.5, 0, -1.5, 1.5]) / np.sqrt([1.5, 1.5, 1, 2.25, 2.25]), atol=1e-6
    )
    with pytest.raises(InputError, match="1 for 2 teachers"):
        fused_scores([a, b], groups, [1], "none")
