import dataclasses
import json
import shutil
from contextlib import contextmanager
from dataclasses import asdict

import jax
import numpy as np
import pytest

from jaxret.data.beir import BeirFolder
from jaxret.data.corpus import Corpus
from jaxret.errors import InputError
from jaxret.runtime.checksums import SUMS
from jaxret.runtime.mesh import device_mesh
from jaxret.search import corpus as store
from jaxret.search.encode import TextEncoder
from jaxret.search.engine import Engine
from jaxret.search.index import build_index, load_index
from jaxret.search.plaid.build import PlaidSettings
from jaxret.search.plaid.stages import published_pruning

MODES = ("dense", "lexical", "multi_vector", "plaid", "bm25")


@pytest.fixture(scope="module")
def encoder(model, random_params):
    """Of token vectors that can be compressed."""
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, token_layers=(8,)))
    return TextEncoder(model, random_params(model.abstract_params()), device_mesh((1, 1, 1), jax.devices()[:1]))


@pytest.fixture(scope="module")
def made(encoder, beir_of_animals, tmp_path_factory):
    """A whole index, in several shards."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SHARD_DOCUMENTS", 12)
        built(folder, encoder, beir_of_animals)
    return folder


def built(folder, encoder, data, language="en", progress=None):
    settings = {"dtype": "int8", "compression": PlaidSettings(nbits=2, num_centroids=8), "progress": progress}
    return build_index(folder, encoder, folder, None, BeirFolder(data).corpus, language, **settings)


@pytest.fixture
def index(made, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(made, tmp_path / "index")


def searched(folder, encoder, mode):
    """A run and the answer to the same question, which read all that the mode ever reads."""
    index = load_index(folder)
    engine = Engine(index, None if mode == "bm25" else encoder, mode, 3 if mode == "plaid" else len(index.documents))
    return engine.run(["q"], ["where is the hen?"]), engine("where is the hen?")


@pytest.mark.parametrize("mode", MODES)
def test_a_question_and_a_run_find_the_same(made, encoder, beir_of_animals, mode):
    texts = dict(zip(*(getattr(BeirFolder(beir_of_animals).corpus, name) for name in ("ids", "texts")), strict=True))
    run, hits = searched(made, encoder, mode)
    found = list(run.to_dict()["q"])
    assert [hit.document.id for hit in hits] == found and len(found) >= 3
    assert all(hit.document.text == texts[hit.document.id] for hit in hits)
    assert sorted(run.documents) == sorted(found), "ids of what was found, and no others"


def test_a_query_that_is_not_finite_is_named(made, encoder, monkeypatch):
    engine, queries = Engine(load_index(made), encoder, "dense", 3), encoder.queries
    broken = queries(["the hen", "the owl"])
    broken.dense[1, 0] = np.inf
    monkeypatch.setattr(encoder, "queries", lambda _: broken)
    with pytest.raises(
        InputError, match=r"^query 'q1': dense holds NaN or an infinite number\. Look for NaN in the model"
    ):
        engine.run(["q0", "q1"], ["the hen", "the owl"])


class Told:
    """Progress in a list: what is done, how much of it there is and how much of it is done."""

    def __init__(self):
        self.rows = []

    @contextmanager
    def __call__(self, what, total):
        self.rows.append([what, total, 0])

        def advance(count):
            self.rows[-1][2] += count

        yield advance


@pytest.mark.parametrize(("mode", "count"), [(mode, 2 if mode == "plaid" else 32) for mode in MODES])
def test_a_search_tells_how_far_it_is(made, encoder, mode, count):
    told, engine = Told(), Engine(load_index(made), None if mode == "bm25" else encoder, mode, 3)
    engine.run(["a", "b"], ["where is the hen?", "where is the owl?"], told)
    assert told.rows == [[f"search by {mode}", count, count]]


def test_indexing_tells_how_far_it_is(index, encoder, beir_of_animals, monkeypatch):
    told = Told()
    monkeypatch.setattr(store, "SHARD_DOCUMENTS", 12)
    built(index, encoder, beir_of_animals, progress=told)
    assert told.rows == [["encode", 32, 32], ["compress", 32, 32]]


def test_what_a_compressed_search_is_made_of(made, encoder):
    facts = Engine(load_index(made), encoder, "plaid", 3).facts
    settings = asdict(PlaidSettings(nbits=2, num_centroids=8))
    assert facts["plaid"] == {**settings, "pruning": asdict(published_pruning(3))}
    assert facts["mesh"] == {"data": 1, "fsdp": 1, "tensor": 1} and not {"nbits", "seed"} & facts.keys()


def reading(name):
    """The mode of search that reads a file of an index."""
    parts = {"plaid/": "plaid", "bm25/": "bm25", "/term_": "lexical", "/token": "multi_vector"}
    return next((mode for part, mode in parts.items() if part in name), "dense")


def halved(data):
    return data[: len(data) // 2]


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [halved, flipped, None])
def test_every_damaged_file_is_named_by_the_search_that_reads_it(index, encoder, damage):
    files = {str(path.relative_to(index)): path for path in index.rglob("*") if path.is_file()}
    del files["vectors/claim.json"]  # for those who encode
    firsts = {name.partition("/")[0] for name in files}
    assert firsts == {"index.json", "documents.jsonl", "documents.offsets.npy", "vectors", "plaid", "bm25"}
    for name, file in files.items():
        whole = file.read_bytes()
        file.unlink()
        if damage:
            file.write_bytes(damage(whole))
        with pytest.raises(InputError, match=rf"^{file}(:\d+)?: .*(again|remake|Run jaxret|Make one)"):
            searched(index, encoder, reading(name))
        file.write_bytes(whole)
    for mode in MODES:
        searched(index, encoder, mode)


@pytest.mark.parametrize("damage", [halved, flipped])
def test_a_damaged_claim_is_named_by_the_next_indexing(index, encoder, beir_of_animals, damage):
    claim = index / "vectors/claim.json"
    claim.write_bytes(damage(claim.read_bytes()))
    with pytest.raises(InputError, match=rf"^{claim}(:\d+)?: "):
        built(index, encoder, beir_of_animals)


def test_parts_of_another_index_are_refused(index, made, encoder, beir_of_animals, tmp_path):
    whole = BeirFolder(beir_of_animals).corpus
    few = Corpus(*(column[:20] for column in (whole.ids, whole.titles, whole.texts)))
    other = tmp_path / "other"
    build_index(other, encoder, other, None, few, "en", compression=PlaidSettings(nbits=2, num_centroids=8))
    for part, modes, problem in (
        ("vectors", MODES, r"vectors/vectors\.json: made with another corpus"),
        ("bm25", MODES, "bm25: holds 20 documents, and the index 32"),
        ("plaid", ("plaid",), "plaid: holds 20 documents, and the index 32"),
    ):
        shutil.rmtree(index / part)
        shutil.copytree(other / part, index / part)
        for mode in modes:
            with pytest.raises(InputError, match=rf"^{index}/{problem}"):
                searched(index, encoder, mode)
        shutil.rmtree(index / part)
        shutil.copytree(made / part, index / part)


def test_compressed_vectors_of_another_model_are_refused(index, encoder, random_params, beir_of_animals, tmp_path):
    model = encoder.model
    other = TextEncoder(model, random_params(model.abstract_params(), seed=1), encoder.mesh)
    built(tmp_path / "other", other, beir_of_animals)
    shutil.rmtree(index / "plaid")
    shutil.copytree(tmp_path / "other/plaid", index / "plaid")
    with pytest.raises(InputError, match=rf"^{index}/plaid: is of another model or corpus .*again.* --nbits"):
        searched(index, encoder, "plaid")
    for name in ("plaid.json", SUMS):
        (index / "plaid" / name).unlink()
    assert searched(index, encoder, "plaid"), "the reference writes neither file, and nothing of the source"


def test_an_index_of_an_older_format_is_made_again_in_place(index, made, encoder, beir_of_animals, monkeypatch):
    old = json.loads((index / "index.json").read_text())
    (index / "index.json").write_text(json.dumps({name: old[name] for name in ("model", "step", "language")}))
    (index / "documents.offsets.npy").unlink()
    with pytest.raises(InputError, match=r"json: format 1, not 2\. Run jaxret index again\. It keeps the vectors"):
        load_index(index)
    monkeypatch.setattr(store, "SHARD_DOCUMENTS", 12)
    monkeypatch.setattr(TextEncoder, "passages", None)
    build_index(index, encoder, made, None, BeirFolder(beir_of_animals).corpus, "en", dtype="int8")
    for name in ("index.json", "documents.jsonl", "documents.offsets.npy"):
        assert (index / name).read_bytes() == (made / name).read_bytes(), name


def test_an_index_outlives_one_that_is_cut_short(index, encoder, beir_of_animals, monkeypatch):
    before = [searched(index, encoder, mode)[0].to_dict() for mode in MODES]

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "SHARD_DOCUMENTS", 12)
    for step in ("build_plaid", "write_documents", "write_json"):
        monkeypatch.setattr(f"jaxret.search.index.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            built(index, encoder, beir_of_animals)
        monkeypatch.undo()
        monkeypatch.setattr(store, "SHARD_DOCUMENTS", 12)
        assert [searched(index, encoder, mode)[0].to_dict() for mode in MODES] == before, step
