"""BGE-M3's protocol: systems of `jaxret evaluate`, and the same by `search`, `fuse` and `rerank`."""

import json

import pytest

from jaxret.search.run_files import read_run
from tests.cli.test_wrong_input import refused

WEIGHTS, CANDIDATES, TOP_K = (0.4, 0.2, 0.4), 12, 6
MODES = ("dense", "lexical", "multi_vector")


def done(jaxret, *arguments):
    code, _, err = jaxret(*arguments)
    assert code == 0, err


def test_systems_equal_the_commands(jaxret, animals, trained, searched, tmp_path):
    index = searched / "index"
    done(jaxret, "evaluate", "--model", trained, "--data", animals, "--split", "train", "--output", tmp_path,
         "--systems", "dense,dense_lexical,reranked,hybrid", "--vectors", index / "vectors", "--k", 20,
         "--hybrid_depth", f"{CANDIDATES},{TOP_K}")  # fmt: skip
    systems = {
        name: read_run(tmp_path / f"runs/{name}.trec").to_dict() for name in ("dense_lexical", "hybrid", "reranked")
    }
    assert len(read_run(tmp_path / "runs/dense.trec").to_dict()["qcat0"]) == 20
    record = json.loads((tmp_path / "manifests/hybrid.json").read_text())
    assert record["hybrid"] == {"weights": list(WEIGHTS), "candidates": CANDIDATES, "top_k": TOP_K}

    for mode in ("dense", "lexical"):
        done(jaxret, "search", "--index", index, "--mode", mode, "--k", CANDIDATES,
             "--queries", animals, "--split", "train", "--output", tmp_path / f"{mode}.trec")  # fmt: skip
    raw = ("--method", "weighted", "--normalization", "none", "--missing", "zero")
    done(jaxret, "fuse", "--run", tmp_path / "dense.trec", "--run", tmp_path / "lexical.trec", *raw,
         "--weights", "0.4,0.2", "--output", tmp_path / "both.trec")  # fmt: skip
    for mode in MODES:
        done(jaxret, "rerank", "--model", f"{index}@{mode}", "--run", tmp_path / "both.trec", "--data", animals,
             "--top_k", TOP_K, "--rest", "drop", "--output", tmp_path / f"{mode}.again.trec")  # fmt: skip
    three = [word for mode in MODES for word in ("--run", tmp_path / f"{mode}.again.trec")]
    done(jaxret, "fuse", *three, *raw, "--weights", "0.4,0.2,0.4", "--output", tmp_path / "hybrid.trec")
    for name, file in (("dense_lexical", "both"), ("reranked", "multi_vector.again"), ("hybrid", "hybrid")):
        found = read_run(tmp_path / f"{file}.trec").to_dict()
        assert found.keys() == systems[name].keys()
        for query, row in systems[name].items():
            # Candidates are cut by scores with six decimals in files; the best are far from the cut.
            best = list(row)[:3]
            assert {d: found[query].get(d) for d in best} == pytest.approx({d: row[d] for d in best}, abs=1e-4)


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (("--hybrid_weights", "1,2"), ["weights", "three"]),
        (("--hybrid_weights", "a"), ["--hybrid_weights", "numbers"]),
        (("--hybrid_depth", "100"), ["--hybrid_depth", "1000,200"]),
        (("--hybrid_depth", "10,20"), ["20 documents", "10 candidates"]),
    ],
)
def test_wrong_input(jaxret, animals, trained, tmp_path, more, parts, compilations):
    arguments = ("--model", trained, "--data", animals, "--split", "train", "--output", tmp_path / "o", "--k", 20)
    refused(jaxret("evaluate", *arguments, "--systems", "hybrid", *more), *parts)
    assert not compilations


def test_it_needs_all_three(jaxret, animals, tmp_path):
    arguments = ("--data", animals, "--split", "train", "--output", tmp_path / "o", "--k", 20, "--systems", "hybrid")
    refused(jaxret("evaluate", *arguments), "--model", "dense")
