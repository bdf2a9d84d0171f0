"""`jaxret evaluate --run`: measures of what other commands and other systems wrote."""

import gzip
import json

import pytest

from jaxret.files import sha256
from tests.cli.test_wrong_input import refused


@pytest.fixture
def files(searched, tmp_path):
    """Runs of BM25, plain, and of dense vectors, zipped, under names of their own."""
    lexical, dense = (searched / f"runs/{system}.trec" for system in ("bm25", "dense"))
    (tmp_path / "words.200.trec").write_bytes(lexical.read_bytes())
    (tmp_path / "vectors.trec.gz").write_bytes(gzip.compress(dense.read_bytes()))
    return tmp_path / "words.200.trec", tmp_path / "vectors.trec.gz"


def measured(jaxret, animals, output, *more):
    return jaxret("evaluate", "--data", animals, "--split", "train", "--output", output, *more)


def scores(folder):
    return {entry["system"]: entry["scores"] for entry in json.loads((folder / "metrics.json").read_text())}


def test_runs_have_the_measures_of_their_systems(jaxret, animals, searched, files, tmp_path):
    output = tmp_path / "results"
    code, _, err = measured(jaxret, animals, output, "--run", files[0], "--run", files[1], "--prefix", "my_")
    assert code == 0, err
    expected = scores(searched)
    assert scores(output) == {"my_words.200": expected["bm25"], "my_vectors": expected["dense"]}
    record = json.loads((output / "manifests/my_vectors.json").read_text())
    assert record["runs"]["vectors"] == {"file": str(files[1]), "sha256": sha256(files[1])}


def test_runs_beside_systems(jaxret, animals, searched, files, tmp_path):
    code, _, err = measured(jaxret, animals, tmp_path / "results", "--run", files[1], "--systems", "bm25", "--k", 32)
    assert code == 0, err
    assert scores(tmp_path / "results") == {"bm25": scores(searched)["bm25"], "vectors": scores(searched)["dense"]}


def test_wrong_input(jaxret, animals, searched, files, tmp_path):
    def wrong(*runs):
        return measured(jaxret, animals, tmp_path / "results", *(word for run in runs for word in ("--run", run)))

    (tmp_path / "vectors.tsv").write_text("")
    refused(wrong(files[1], tmp_path / "vectors.tsv"), "--run", "would be called vectors", "Rename the file")
    refused(wrong(searched / "runs/bm25.trec"), "--run", "would be called bm25", "the system bm25")
    refused(wrong(tmp_path / "nothing.trec"), "nothing.trec", "no such file")
    refused(wrong(tmp_path / "vectors.tsv"), "vectors.tsv", "no result")
    assert not (tmp_path / "results").exists()
