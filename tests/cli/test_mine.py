"""`jaxret mine` as a user types it: every source, every layout, what training makes of it, and wrong input."""

import json
import subprocess
import sys

import pytest

from jaxret.data.beir import BeirFolder
from jaxret.data.groups import read_groups
from jaxret.search.bm25 import BM25
from jaxret.search.corpus import passage_texts, store_ids
from jaxret.search.run_files import read_run, write_run
from jaxret.search.runs import Run
from tests.cli.test_wrong_input import refused


def negatives(file) -> dict[str, dict[str, float]]:
    header, *rows = file.read_text().splitlines()
    assert header == "query-id\tcorpus-id\tscore"
    found: dict[str, dict[str, float | int]] = {}
    for query, name, score in (row.split("\t") for row in rows):
        found.setdefault(query, {})[name] = float(score)
    return found


def mined(jaxret, data, output, *more):
    code, out, err = jaxret("mine", "--data", data, "--output", output, *more)
    assert code == 0, err
    return out


@pytest.fixture
def run(animals, tmp_path):
    """BM25's run over the queries, ten deep, and where it lies."""
    folder = BeirFolder(animals)
    scores, positions = BM25.build(passage_texts(folder.corpus, " "), "en").top_k(folder.queries.texts, 10)
    ids = store_ids(folder.corpus)
    write_run(Run.from_top_k(folder.queries.ids, ids, positions, scores), tmp_path / "bm25.trec")
    return tmp_path / "bm25.trec"


def from_run(file, first, last, count):
    """A brute-force reading of a run file: ranks in the window, without the query's own document."""
    found = {}
    for query, row in read_run(file).to_dict().items():
        kept = [item for item in list(row.items())[first - 1 : last] if item[0] != query[1:]]
        found[query] = dict(kept[:count])
    return found


def same(found, expected):
    """Whether the queries have the same negatives in the same order, with almost the same scores."""
    assert {query: list(row) for query, row in found.items()} == {query: list(row) for query, row in expected.items()}
    for query, row in expected.items():
        assert found[query] == pytest.approx(row, abs=2e-6)


def test_bm25_and_a_run_file_give_what_a_script_gives(jaxret, animals, run, tmp_path):
    ranks = ("--ranks", "2-9", "--num_negatives", 3)
    out = mined(jaxret, animals, tmp_path / "a.tsv", "--from", "bm25", *ranks)
    mined(jaxret, animals, tmp_path / "b.tsv", "--from", run, *ranks)
    for name in ("a.tsv", "b.tsv"):
        same(negatives(tmp_path / name), from_run(run, 2, 9, 3))
    assert "32 queries: 32 with 3 negatives, 0 with fewer, 0 with none" in out
    record = json.loads((tmp_path / "b.tsv.manifest.json").read_text())
    assert record["settings"]["last_rank"] == 9 and record["from"]["sha256"]
    assert record["counts"]["candidates"]["chosen"] == 96


def test_what_is_mined_is_what_training_reads(jaxret, animals):
    mined(jaxret, animals, animals / "negatives.tsv", "--from", "bm25", "--num_negatives", 2)
    assert [len(row) for row in BeirFolder(animals).validated("train").negatives.values()] == [2] * 32


@pytest.mark.parametrize("mode", ["dense", "multi_vector"])
def test_a_model_and_its_index_give_what_a_run_of_it_gives(jaxret, trained, searched, animals, tmp_path, mode):
    if mode == "dense":
        mined(jaxret, animals, tmp_path / "a.tsv", "--from", trained, "--mode", mode, "--ranks", "3-9")
    else:
        mined(jaxret, animals, tmp_path / "a.tsv", "--from", f"{searched / 'index'}@{mode}", "--ranks", "3-9")
    same(negatives(tmp_path / "a.tsv"), from_run(searched / f"runs/{mode}.trec", 3, 9, 4))
    assert not list(tmp_path.glob(".*")), "the encoded corpus is gone"


def test_margins(jaxret, animals, run, tmp_path):
    limits = ("--relative_margin", 0.1, "--margin", 0.2, "--num_negatives", 99)
    out = mined(jaxret, animals, tmp_path / "a.tsv", "--from", run, *limits)
    expected = {}
    for query, row in from_run(run, 1, 10, 99).items():
        positive = read_run(run).to_dict()[query][query[1:]]
        kept = {name: score for name, score in row.items() if score <= min(positive - 0.2, 0.9 * positive)}
        expected |= {query: kept} if kept else {}
    same(negatives(tmp_path / "a.tsv"), expected)
    assert "margin" in out


@pytest.mark.parametrize("kind", ["run", "model"])
def test_a_teacher(jaxret, searched, animals, run, tmp_path, kind):
    teacher = searched / "runs/dense.trec" if kind == "run" else f"{searched / 'index'}@dense"
    more = ("--teacher", teacher, "--teacher_margin", 0.001, "--num_negatives", 99)
    out = mined(jaxret, animals, tmp_path / "a.tsv", "--from", run, *more)
    expected, opinions = {}, read_run(searched / "runs/dense.trec").to_dict()
    for query, row in from_run(run, 1, 10, 99).items():
        kept = {name: s for name, s in row.items() if opinions[query][name] <= opinions[query][query[1:]] - 0.001}
        expected |= {query: kept} if kept else {}
    same(negatives(tmp_path / "a.tsv"), expected)
    assert "short because of teacher" in out and any(expected.values())


def test_seeds(jaxret, animals, run, tmp_path):
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        more = ("--sampling", "random", "--seed", seed, "--num_negatives", 2, "--batch_size", 3 + seed)
        mined(jaxret, animals, tmp_path / f"{name}.tsv", "--from", run, *more)
        found.append((tmp_path / f"{name}.tsv").read_text())
    assert found[0] == found[1] != found[2]


def test_layouts(jaxret, animals, run, tmp_path):
    for layout in ("colbert", "flagembedding", "tevatron"):
        mined(jaxret, animals, tmp_path / layout, "--from", run, "--layout", layout, "--num_negatives", 2)
    expected = from_run(run, 1, 10, 2)
    for group in read_groups(tmp_path / "colbert", BeirFolder(animals)):
        assert [group.positives[0].id] == [group.query_id[1:]]
        assert [passage.id for passage in group.negatives] == list(expected[group.query_id])
    assert len(list(read_groups(tmp_path / "flagembedding"))) == 32
    row = json.loads((tmp_path / "tevatron").read_text().splitlines()[0])
    assert [passage["docid"] for passage in row["negative_passages"]] == list(expected[row["query_id"]])


def test_a_dry_run_writes_nothing(jaxret, animals, tmp_path):
    out = mined(jaxret, animals, tmp_path / "new" / "a.tsv", "--from", "bm25", "--teacher", "bm25", "--dry_run")
    assert "would mine negatives for 32 queries" in out and "bm25" in out
    assert not (tmp_path / "new").exists()


def test_an_interrupted_run_leaves_the_older_file(jaxret, animals, tmp_path):
    (tmp_path / "a.tsv").write_text("older")
    (tmp_path / "r.trec").write_text("qcat0 Q0 cat1 1 1.0 x\nqbee3 Q0 nowhere 1 1.0 x\n")
    result = jaxret(
        "mine", "--data", animals, "--from", tmp_path / "r.trec", "--output", tmp_path / "a.tsv", "--batch_size", 1
    )
    refused(result, "'nowhere' is not in")
    assert (tmp_path / "a.tsv").read_text() == "older" and not list(tmp_path.glob(".a.tsv*"))


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (("--from", "no/model"), ["no/model"]),
        (("--from", "bm25", "--split", "test"), ["no split 'test'", "train"]),
        (("--from", "bm25", "--ranks", "10"), ["--ranks", "10-100"]),
        (("--from", "bm25", "--ranks", "20-10"), ["20-10 is no window"]),
        (("--from", "bm25", "--ranks", "33-40"), ["starts at 33 of 32"]),
        (("--from", "bm25", "--layout", "pyserini"), ["--layout", "tevatron"]),
        (("--from", "bm25", "--sampling", "best"), ["sampling", "random"]),
        (("--from", "bm25", "--num_negatives", "0"), ["num_negatives"]),
        (("--from", "bm25", "--batch_size", "0"), ["--batch_size"]),
        (("--from", "bm25", "--language", "Japanese"), ["Japanese"]),
        (("--from", "bm25", "--teacher", "no/teacher"), ["no/teacher"]),
    ],
)
def test_wrong_input(jaxret, animals, tmp_path, more, parts, compilations):
    refused(jaxret("mine", "--data", animals, "--output", tmp_path / "a.tsv", *more), *parts)
    assert not compilations and not (tmp_path / "a.tsv").exists()


def test_wrong_modes_and_names(jaxret, trained, animals, tmp_path):
    result = jaxret("mine", "--data", animals, "--from", trained, "--mode", "sparse", "--output", tmp_path / "a.tsv")
    refused(result, "no 'sparse'", "multi_vector")
    refused(jaxret("mine", "--data", animals, "--from", "bm25", "--output", tmp_path / "a.tsv.gz"), ".gz")


def test_help_is_quick():
    code = "import sys; sys.argv = ['jaxret', 'mine', '--help']\nfrom jaxret.cli.main import main\n"
    code += "try: main()\nexcept SystemExit: print([m for m in ('jax', 'numpy', 'tensorflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
