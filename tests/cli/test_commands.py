"""The commands one after the other on a tiny folder, as the README has them."""

import json

import pytest

SYSTEMS = "bm25,dense,lexical,multi_vector,fusion"


def test_vocab(jaxret, beir_of_animals, tmp_path):
    from jaxret.data.tokenizer import Tokenizer

    file = tmp_path / "vocabulary.model"
    assert jaxret("vocab", "--data", beir_of_animals, "--output", file, "--size", 300)[0] == 0
    tokenizer = Tokenizer.load(file)
    assert tokenizer.size == 300
    assert tokenizer.decode(tokenizer.encode(["the cat sleeps"])[0]) == "the cat sleeps"


def test_train_resumes(jaxret, gin_file, tmp_path):
    workdir = tmp_path / "model"
    arguments = ("train", "--gin_file", gin_file, f'--gin.train.workdir="{workdir}"', "--gin.train.log_period=1")
    assert jaxret(*arguments, "--dry_run")[0] == 0
    assert not (workdir / "checkpoints").exists()
    code, out, err = jaxret(*arguments)
    assert code == 0, err
    assert out.strip() == str(workdir)
    assert "step 1/2" in err
    code, _, err = jaxret(*arguments)
    assert code == 0 and "step" not in err, "there was nothing left to do"
    manifest = json.loads((workdir / "manifest.json").read_text())
    assert manifest["first_step"] == 2
    assert "adamw.learning_rate = 0.001" in manifest["gin"]


def test_index_search_evaluate_report(jaxret, trained, beir_of_animals, tmp_path):
    index, results = tmp_path / "index", tmp_path / "results"
    whole = ("index", "--model", trained, "--data", beir_of_animals, "--output", index, "--dtype", "bfloat16")
    code, _, err = jaxret(*whole, "--nbits", 3)
    assert code and "nbits: 3. Choose one of 1, 2, 4" in err and not index.exists()
    made = jaxret(*whole, "--nbits", 2)
    assert made[0] == 0, made[2]
    code, out, _ = jaxret("search", "hen", "--index", index, "--dry_run")
    assert code == 0 and "32 documents" in out and "1. " not in out
    for mode in ("multi_vector", "dense", "lexical", "plaid", "bm25"):
        code, out, err = jaxret("search", "the hen dreams of bread", "--index", index, "--mode", mode, "--k", 2)
        assert code == 0, err
        assert out.count("hen") >= (mode == "bm25")
        assert "1. " in out and "2. " in out and "3. " not in out
    common = ("--model", trained, "--data", beir_of_animals, "--split", "train", "--k", 20, "--output", results)
    more = ("--systems", SYSTEMS, "--vectors", index / "vectors", "--fusion_weight", "choose")
    code, _, err = jaxret("evaluate", *common, *more)
    assert code == 0, err
    code, _, err = jaxret("evaluate", *common, "--step", 0, "--prefix", "untrained_")
    assert code == 0, err
    entries = json.loads((results / "metrics.json").read_text())
    assert [entry["system"] for entry in entries] == [
        *SYSTEMS.split(","),
        *(f"untrained_{mode}" for mode in ("dense", "lexical", "multi_vector")),
    ]
    assert {"recall_at_1", "recall_at_10", "mrr_at_10", "ndcg_at_10"} <= entries[0]["scores"].keys()
    assert 0 <= json.loads((results / "fusion.json").read_text())["weight"] <= 1
    assert len((results / "runs/bm25.trec").read_text().splitlines()) > 32
    arguments = ("--results", results, "--model", trained, "--data", beir_of_animals, "--split", "train")
    code, out, err = jaxret("report", *arguments, "--output", results / "report.html")
    assert code == 0, err
    assert "bm25" in out.lower() or "BM25" in out
    assert (results / "report.html").stat().st_size < 2**20


def test_evaluate_refuses_vectors_of_another_step(jaxret, trained, beir_of_animals, tmp_path):
    made = jaxret("encode", "--model", trained, "--data", beir_of_animals, "--output", tmp_path / "vectors")
    assert made[0] == 0, made[2]
    common = ("--model", trained, "--data", beir_of_animals, "--split", "train", "--k", 5, "--output", tmp_path / "o")
    code, _, err = jaxret("evaluate", *common, "--vectors", tmp_path / "vectors", "--step", 0)
    assert code == 2 and "another model" in err
    assert jaxret("evaluate", *common, "--vectors", tmp_path / "vectors")[0] == 0


@pytest.mark.parametrize(
    "command", ["vocab", "train", "encode", "index", "search", "evaluate", "report", "mine", "score", "rerank", "fuse"]
)
def test_help(jaxret, command):
    code, out, _ = jaxret(command, "--help")
    assert code == 0 and "Usage" in out
