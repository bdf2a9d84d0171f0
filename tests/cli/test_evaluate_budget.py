"""`jaxret evaluate --memory_budget_gb` encodes into files beside the output, which go with the command."""

import json

import pytest

from jaxret.search import corpus as encoding
from tests.cli.test_wrong_input import refused

SYSTEMS = "bm25,dense,lexical,multi_vector,fusion,reranked"


@pytest.fixture
def evaluated(jaxret, trained, animals, tmp_path):
    def run(name, *more):
        command = ("evaluate", "--model", trained, "--data", animals, "--split", "train", "--systems", SYSTEMS)
        command = (*command, "--hybrid_depth", "20,10", "--k", 20, "--output", tmp_path / "results" / name)
        return jaxret(*command, *more)

    return run


def test_the_same_numbers_from_a_store_that_goes(evaluated, tmp_path, monkeypatch):
    assert evaluated("plain")[0] == 0
    encode, shards = encoding.encode_corpus, []

    def encoded(encoder, corpus, store, *rest):
        shards.append((rest[-1], store))
        return encode(encoder, corpus, store, *rest)

    def in_memory(*_):
        raise AssertionError("vectors in memory")

    monkeypatch.setattr(encoding, "encode_corpus", encoded)
    monkeypatch.setattr(encoding, "encoded_now", in_memory)
    monkeypatch.setattr(encoding, "part_bytes", lambda *_: 11 * 4 * 10**3)
    code, _, err = evaluated("budget", "--memory_budget_gb", 4)
    assert code == 0, err
    ((documents, store),) = shards
    assert 1 < documents < 32 and store.parent.parent == tmp_path / "results" and not store.exists()
    plain, budget = (
        json.loads((tmp_path / "results" / name / "metrics.json").read_text()) for name in ("plain", "budget")
    )
    assert [entry["system"] for entry in plain] == SYSTEMS.split(",")
    for one, other in zip(plain, budget, strict=True):
        assert one["system"] == other["system"] and one["scores"] == pytest.approx(other["scores"], abs=1e-6)

    def full(*_):
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(encoding, "write_shard", full)
    code, _, err = evaluated("full", "--memory_budget_gb", 4)
    assert code == 2 and "no space left" in err
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["budget", "plain"]
    monkeypatch.undo()
    refused(evaluated("small", "--memory_budget_gb", 0.05), "memory_budget_gb: 0.05 GB", "encode the corpus before")
