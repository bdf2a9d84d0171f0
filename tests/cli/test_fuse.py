"""`jaxret fuse`, and `jaxret search` over a file of queries."""

import json
from itertools import chain

import pytest

from jaxret.data.beir import BeirFolder
from jaxret.files import sha256
from jaxret.search.run_files import read_run
from tests.cli.test_wrong_input import refused

RUNS = ({"q1": {"a": 3.0, "b": 2.0, "c": 1.0}, "q2": {"a": 5.0}}, {"q1": {"c": 0.9, "d": 0.5}})
RRF = {
    "q1": {"c": 1 / 63 + 2 / 61, "d": 2 / 62, "a": 1 / 61, "b": 1 / 62},
    "q2": {"a": 1 / 61},
}


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "a.trec", tmp_path / "b.trec"]
    for path, run in zip(paths, RUNS, strict=True):
        path.write_text("".join(f"{q} Q0 {d} 1 {s} x\n" for q, row in run.items() for d, s in row.items()))
    return paths


def given(files, *more):
    return [*chain(*(("--run", file) for file in files)), *more]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--weights", "1,2"), RRF),
        (("--weights", "1,2", "--depth", 2), {"q1": {"c": RRF["q1"]["c"], "d": RRF["q1"]["d"]}, "q2": RRF["q2"]}),
        (("--k", 0), {"q1": {"c": 1 / 3 + 1, "a": 1.0, "d": 0.5, "b": 0.5}, "q2": {"a": 1.0}}),
        (("--method", "weighted"), {"q1": {"c": 1.0, "a": 1.0, "b": 0.5, "d": 0.0}, "q2": {"a": 1.0}}),
        (
            ("--method", "weighted", "--normalization", "none", "--missing", "zero", "--weights", "0.1,1"),
            {"q1": {"c": 1.0, "d": 0.5, "a": 0.3, "b": 0.2}, "q2": {"a": 0.5}},
        ),
        (
            ("--method", "weighted", "--normalization", "none"),
            {"q1": {"a": 3.5, "b": 2.5, "c": 1.9, "d": 1.5}, "q2": {"a": 5.0}},
        ),
    ],
)
def test_fused(jaxret, files, tmp_path, more, expected):
    output = tmp_path / "fused.trec"
    code, out, err = jaxret("fuse", *given(files, "--output", output, "--tag", "both", *more))
    assert code == 0, err
    assert out.strip() == f"{output}: 2 queries"
    found = read_run(output).to_dict()
    assert found == {query: pytest.approx(row, abs=1e-6) for query, row in expected.items()}
    for row in found.values():
        assert list(row) == sorted(row, key=lambda document: (row[document], document), reverse=True)
    assert output.read_text().splitlines()[0].endswith(" both")
    record = json.loads((tmp_path / "fused.trec.manifest.json").read_text())
    assert [entry["run"] for entry in record["data"]["runs"]] == [str(file) for file in files]
    assert record["settings"]["method"] in ("rrf", "weighted") and record["output_sha256"]


def test_a_dry_run_writes_nothing(jaxret, files, tmp_path):
    code, out, _ = jaxret("fuse", *given(files, "--output", tmp_path / "o", "--dry_run"))
    assert code == 0 and "would fuse 2 queries" in out and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (("--method", "borda"), ["--method", "rrf, weighted"]),
        (("--weights", "1"), ["--weights", "1 for 2 runs"]),
        (("--weights", "a,b"), ["--weights", "'a,b'"]),
        (("--depth", 0), ["--depth", "1 or more"]),
        (("--k", -1), ["--k", "0 or more"]),
        (("--method", "weighted", "--k", 60), ["--k", "rrf"]),
        (("--normalization", "sum"), ["--normalization", "ranks only"]),
        (("--missing", "zero"), ["--missing", "ranks only"]),
        (("--method", "weighted", "--normalization", "softmax"), ["--normalization", "min_max, z_score, sum"]),
        (("--method", "weighted", "--missing", "mean"), ["--missing", "lowest, zero"]),
        (("--output", "fused.trec.gz"), ["--output", ".gz"]),
        (("--run", "nothing.trec"), ["nothing.trec"]),
    ],
)
def test_wrong_input(jaxret, files, tmp_path, more, parts):
    refused(jaxret("fuse", *given(files, "--output", tmp_path / "o", *more)), *parts)
    assert not (tmp_path / "o").exists()


def test_one_run_is_no_fusion(jaxret, files, tmp_path):
    refused(jaxret("fuse", *given(files[:1], "--output", tmp_path / "o")), "--run", "twice")


def check_record(record, corpus, queries):
    """The manifest of a search says of what, by what and where."""
    assert record["settings"]["corpus"] == corpus and record["settings"]["queries_sha256"] == queries
    assert record["versions"]["jax"] and "analyzer" not in record
    if record["system"] == "bm25":
        assert record["bm25"]["analyzer"] == "snowball" and record["bm25"]["versions"]["PyStemmer"]
        assert "mesh" not in record
    else:
        assert record["mesh"]["data"] == record["num_devices"] == 8 and "bm25" not in record


@pytest.mark.parametrize("mode", ["bm25", "multi_vector"])
def test_search_writes_a_run(jaxret, animals, searched, tmp_path, mode):
    output = tmp_path / "run.trec"
    common = ("search", "--index", searched / "index", "--mode", mode, "--output", output)
    code, out, err = jaxret(*common, "--queries", animals, "--split", "train")
    assert code == 0, err
    assert out.strip() == f"{output}: 32 queries" and f"search by {mode}: 32 in " in err
    assert read_run(output).to_dict() == read_run(searched / f"runs/{mode}.trec").to_dict()
    record = json.loads((tmp_path / "run.trec.manifest.json").read_text())
    assert record["system"] == mode and record["settings"]["k"] == 32
    queries = BeirFolder(animals).queries
    check_record(record, BeirFolder(animals).corpus.fingerprint, sha256(animals / "queries.jsonl"))
    assert record["settings"]["split"] == "train" and record["settings"]["memory_budget_gb"] is None
    few = tmp_path / "queries.tsv"
    few.write_text("".join(f"{queries.ids[row]}\t{queries.texts[row]}\n" for row in (3, 1)))
    code, _, err = jaxret(*common, "--queries", few, "--k", 2, "--tag", "few", "--memory_budget_gb", 4)
    assert code == 0, err
    record = json.loads((tmp_path / "run.trec.manifest.json").read_text())
    check_record(record, BeirFolder(animals).corpus.fingerprint, sha256(few))
    assert record["settings"]["split"] is None and record["settings"]["memory_budget_gb"] == 4
    expected = read_run(searched / f"runs/{mode}.trec").to_dict()
    for query, row in read_run(output).to_dict().items():
        assert row == pytest.approx(dict(list(expected[query].items())[:2]), abs=1e-4)
    assert len(read_run(output)) == 2


def test_what_does_not_fit_together(jaxret, animals, searched, tmp_path, compilations):
    common = ("search", "--index", searched / "index", "--mode", "bm25")
    refused(jaxret(*common, "--queries", animals), "--queries", "--output")
    refused(jaxret(*common, "--output", tmp_path / "o"), "--output", "--queries")
    both = ("--queries", animals, "--output", tmp_path / "o")
    refused(jaxret(*common, "hen", *both), "question", "one of them")
    refused(jaxret(*common, *both, "--split", "none"), "no split 'none'")
    assert not compilations and not (tmp_path / "o").exists()
