"""Wrong input: one line that names the place and the fix, exit code 2, before anything is compiled."""

import inspect
import shutil
from pathlib import Path

import pytest

from jaxret.cli.train import KNOWN_AS
from jaxret.train.loop import train


def spoiled(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def refused(result: tuple[int, str, str], *parts: str) -> None:
    code, _, err = result
    lines = [line for line in err.splitlines() if line.startswith("jaxret:")]
    assert code == 2, err
    assert len(lines) == 1, err
    for part in parts:
        assert part in lines[0], lines[0]


@pytest.fixture(autouse=True)
def _nothing_is_compiled(compilations, request):
    yield
    assert not compilations


def test_missing_folder(jaxret, trained, tmp_path):
    refused(
        jaxret("encode", "--model", trained, "--data", tmp_path / "no", "--output", tmp_path / "v"), "no such folder"
    )


def test_missing_file(jaxret, trained, animals, tmp_path):
    (animals / "corpus.jsonl").unlink()
    refused(jaxret("encode", "--model", trained, "--data", animals, "--output", tmp_path / "v"), "corpus.jsonl", ".gz")


def test_missing_model(jaxret, animals, tmp_path):
    arguments = ("encode", "--model", tmp_path / "no", "--data", animals, "--output", tmp_path / "v")
    refused(jaxret(*arguments), str(tmp_path / "no"))


def test_broken_json(jaxret, trained, animals, tmp_path):
    spoiled(animals / "corpus.jsonl", '"_id": "cat1"', '"_id": "cat1')
    refused(jaxret("encode", "--model", trained, "--data", animals, "--output", tmp_path / "v"), "corpus.jsonl:2")


def evaluated(jaxret, model, data, output, *more):
    return jaxret("evaluate", "--model", model, "--data", data, "--split", "train", "--output", output, *more)


def test_dangling_qrels(jaxret, trained, animals, tmp_path):
    spoiled(animals / "qrels/train.tsv", "qdog2\tdog2\t1", "qdog2\tdog9\t1")
    refused(evaluated(jaxret, trained, animals, tmp_path / "o", "--k", "5"), "train.tsv:8", "dog9", "corpus.jsonl")


def test_empty_query(jaxret, trained, animals, tmp_path):
    spoiled(animals / "queries.jsonl", '"text": "where is the cat? cat0"', '"text": "  "')
    refused(evaluated(jaxret, trained, animals, tmp_path / "o", "--k", "5"), "queries.jsonl:1", "text")


def test_missing_split(jaxret, trained, animals, tmp_path):
    result = jaxret("evaluate", "--model", trained, "--data", animals, "--output", tmp_path / "o", "--k", "5")
    refused(result, "no split 'test'", "train")


def test_k_larger_than_the_corpus(jaxret, trained, animals, tmp_path):
    refused(evaluated(jaxret, trained, animals, tmp_path / "o", "--k", "33"), "--k", "33", "32")


def test_unknown_system_and_measure(jaxret, trained, animals, tmp_path):
    refused(evaluated(jaxret, trained, animals, tmp_path / "o", "--k", "5", "--systems", "colbert"), "multi_vector")
    refused(evaluated(jaxret, trained, animals, tmp_path / "o", "--k", "5", "--measures", "ndgc@10"), "ndgc", "ndcg")


def test_a_head_that_the_model_lacks(jaxret, trained, animals, tmp_path, compilations):
    copy = Path(shutil.copytree(trained, tmp_path / "model"))
    spoiled(copy / "retriever.json", '"lexical",', "")
    wanted = ("--k", "5", "--systems", "dense,lexical")
    refused(evaluated(jaxret, copy, animals, tmp_path / "o", *wanted), "has no lexical", "dense, multi_vector")
    assert not compilations and not (tmp_path / "o").exists()


def test_unknown_step(jaxret, trained, animals, tmp_path):
    result = jaxret("encode", "--model", trained, "--step", "7", "--data", animals, "--output", tmp_path / "v")
    refused(result, "no step 7", "0, 2")


@pytest.mark.parametrize("shape", ["3,1,1", "-1,-1,1", "8,1", "eight"])
def test_mesh_that_does_not_fit(jaxret, trained, animals, tmp_path, shape):
    arguments = ("encode", "--model", trained, "--data", animals, "--output", tmp_path / "v", "--mesh_shape", shape)
    refused(jaxret(*arguments), "mesh_shape")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("--gin.train.stepz=3", ["stepz"]),
        ("--gin.train.mini_batch_size=8", ["mini_batch_size", "Here it is train.chunk_rows."]),
        ("--gin.train.per_device_batch_size=8", ["Here it is train.global_batch_size, of all devices together."]),
        ("--gin.tarin.steps=3", ["tarin"]),
        ("--gin.train.steps=3 +", ["gin"]),
        ("--gin.train.steps=0", ["steps", "1 or more"]),
        ("--gin.train.global_batch_size=12", ["global_batch_size", "multiple of 8"]),
        ("--gin.train.chunk_rows=-1", ["train.chunk_rows", "-1"]),
        ("--gin.train.kept_rows=8", ["train.kept_rows", "Set train.chunk_rows too"]),
        ("--gin.train.mesh_shape=(3, 1, 1)", ["mesh_shape", "8 devices"]),
        ('--gin.train.vocabulary="no.model"', ["no.model", "jaxret vocab"]),
        ('--gin.Source.folder="nowhere"', ["nowhere"]),
        ("--gin.training_batches.train_group_size=2", ["negatives"]),
        ("--gin.EncoderConfig.num_heads=5", ["num_heads"]),
        ('--gin.RetrieverConfig.pooling="median"', ["pooling", "mean"]),
        ('--gin.RetrieverConfig.heads=("dens",)', ["heads", "dense"]),
        ("--steps=3", ["--steps=3", "--gin.train.steps"]),
    ],
)
def test_gin_mistakes(jaxret, gin_file, tmp_path, override, parts):
    workdir = f'--gin.train.workdir="{tmp_path / "model"}"'
    refused(jaxret("train", "--gin_file", gin_file, workdir, override), *parts)


def test_what_settings_of_others_are_called_here_exists():
    assert set(KNOWN_AS.values()) <= set(inspect.signature(train).parameters)
    assert not set(KNOWN_AS) & set(inspect.signature(train).parameters)


def test_missing_gin_file(jaxret, tmp_path):
    refused(jaxret("train", "--gin_file", tmp_path / "no.gin"), "no.gin")


def test_checkpoint_that_does_not_fit(jaxret, trained, gin_file):
    result = jaxret("train", "--gin_file", gin_file, "--gin.EncoderConfig.width=32")
    refused(result, "another model", "new workdir")


def test_search_without_an_index(jaxret, tmp_path):
    refused(jaxret("search", "cat", "--index", tmp_path), "jaxret index")


def test_report_without_results(jaxret, trained, animals, tmp_path):
    arguments = ("report", "--results", tmp_path, "--model", trained, "--data", animals, "--split", "train")
    refused(jaxret(*arguments, "--output", tmp_path / "r.html"), "metrics.json", "jaxret evaluate")
