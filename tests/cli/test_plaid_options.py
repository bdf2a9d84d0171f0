"""What `jaxret index` and `jaxret search` are told of compressed vectors."""

import json

import pytest

from jaxret.search.run_files import read_run
from tests.cli.test_wrong_input import refused


@pytest.fixture
def index(jaxret, trained, animals, tmp_path):
    """An index of eight centroids."""
    sizes = ("--nbits", 4, "--num_centroids", 8, "--points_per_centroid", 16)
    code, _, err = jaxret("index", "--model", trained, "--data", animals, "--output", tmp_path / "index", *sizes)
    assert code == 0, err
    return tmp_path / "index"


def test_they_reach_the_index_and_the_search(jaxret, index, animals, tmp_path):
    settings = json.loads((index / "plaid/plaid.json").read_text())["settings"]
    assert (settings["num_centroids"], settings["points_per_centroid"]) == (8, 16)
    assert json.loads((index / "plaid/metadata.json").read_text())["num_partitions"] == 8

    def run(name, *more):
        common = ("--index", index, "--mode", "plaid", "--queries", animals, "--split", "train", "--k", 3)
        code, _, err = jaxret("search", *common, "--output", tmp_path / name, *more)
        assert code == 0, err
        return read_run(tmp_path / name).to_dict(), json.loads((tmp_path / f"{name}.manifest.json").read_text())

    every, record = run("every.trec", "--ncells", 0)
    assert record["plaid"]["pruning"]["ncells"] == 0
    pruned, record = run("pruned.trec", "--ncells", 1, "--ndocs", 12, "--centroid_score_threshold", 0.9)
    assert record["plaid"]["pruning"] == {"ncells": 1, "centroid_score_threshold": 0.9, "ndocs": 12}
    assert every.keys() == pruned.keys() and every != pruned


def test_wrong_settings(jaxret, index, trained, animals, tmp_path):
    def indexed(*more):
        return jaxret("index", "--model", trained, "--data", animals, "--output", tmp_path / "other", *more)

    refused(indexed("--num_centroids", 8), "--num_centroids", "Give --nbits")
    refused(indexed("--nbits", 2, "--points_per_centroid", 0), "points_per_centroid", "Give 1 or more")
    search = ("search", "a hen", "--index", index)
    refused(jaxret(*search, "--ndocs", 100), "--ndocs", "multi_vector looks at every document")
    refused(jaxret(*search, "--mode", "plaid", "--ndocs", 4), "ndocs", "Give 12 or more")
    refused(jaxret(*search, "--mode", "plaid", "--ncells", -1), "ncells", "Give 1 or more")
