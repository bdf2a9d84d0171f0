"""`jaxret score`: a teacher's scores in a file equal those of its own ranking; fusions; wrong input."""

import json

import pytest

from jaxret.data.beir import BeirFolder
from jaxret.data.group_files import flagembedding_lines
from jaxret.data.groups import read_groups
from jaxret.search.run_files import read_run, write_run
from jaxret.search.runs import Run
from tests.cli.test_wrong_input import refused

TRIPLES = [["qcat0", "cat0", "cat1", "dog2"], ["qhen3", "hen3", "owl0"], ["qcat0", "cat0", "bee1"]]


@pytest.fixture
def triples(tmp_path):
    file = tmp_path / "triples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in TRIPLES))
    return file


def written(jaxret, tmp_path, *arguments):
    code, _, err = jaxret("score", *arguments, "--output", tmp_path / "scored.jsonl")
    assert code == 0, err
    return [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]


def table(tmp_path, name="run", shift=0.0):
    """A run file over all that the triples name."""
    scores: dict[str, dict[str, float]] = {}
    for number, (query, *names) in enumerate(TRIPLES):
        for place, document in enumerate(names):
            scores.setdefault(query, {}).setdefault(document, (7 * number + 3 * place + shift) % 5 + 0.25)
    write_run(Run.from_dict(scores), tmp_path / f"{name}.trec")
    return tmp_path / f"{name}.trec", scores


def test_a_run_scores_triples(jaxret, animals, triples, tmp_path):
    run, scores = table(tmp_path)
    rows = written(jaxret, tmp_path, "--data", animals, "--input", triples, "--teacher", run, "--batch_size", 2)
    assert rows == [[query, *([name, scores[query][name]] for name in names)] for query, *names in TRIPLES]
    record = json.loads((tmp_path / "scored.jsonl.manifest.json").read_text())
    assert record["teachers"][0]["sha256"] and record["normalization"] == "none"


@pytest.mark.parametrize("system", ["dense", "multi_vector", "bm25"])
def test_systems_score_as_they_rank(jaxret, trained, searched, animals, triples, tmp_path, system):
    teacher = {"dense": trained, "multi_vector": f"{searched / 'index'}@multi_vector", "bm25": "bm25"}[system]
    expected = read_run(searched / f"runs/{system}.trec").to_dict()
    arguments = ("--data", animals, "--input", triples, "--teacher", teacher, "--mode", "dense")
    for query, *pairs in written(jaxret, tmp_path, *arguments):
        assert dict(pairs) == pytest.approx({name: expected[query].get(name, 0.0) for name, _ in pairs}, abs=1e-5)


def test_texts_without_ids(jaxret, trained, searched, animals, triples, tmp_path):
    expected = read_run(searched / "runs/dense.trec").to_dict()
    groups = list(read_groups(triples, BeirFolder(animals)))
    lines = [line for group in groups for line in flagembedding_lines(group)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    rows = written(jaxret, tmp_path, "--input", tmp_path / "texts.jsonl", "--teacher", f"{trained}@dense")
    for row, before, (query, *names) in zip(rows, map(json.loads, lines), TRIPLES, strict=True):
        assert {name: row[name] for name in before} == before
        scores = [expected[query][name] for name in names]
        assert row["pos_scores"] + row["neg_scores"] == pytest.approx(scores, abs=1e-5)
    output = ("--output", tmp_path / "o.jsonl")
    refused(jaxret("score", "--input", tmp_path / "texts.jsonl", "--teacher", "bm25", *output), "needs ids")
    more = ("--teacher", trained, "--layout", "colbert")
    refused(jaxret("score", "--input", tmp_path / "texts.jsonl", *more, *output), "no ids for colbert")


def test_mined_negatives_of_a_folder(jaxret, animals, tmp_path):
    assert jaxret("mine", "--data", animals, "--from", "bm25", "--output", animals / "negatives.tsv")[0] == 0
    rows = written(jaxret, tmp_path, "--data", animals, "--teacher", "bm25", "--layout", "flagembedding")
    assert len(rows) == 32
    assert all(len(row["pos_scores"]) == 1 and len(row["neg_scores"]) == 4 for row in rows)
    assert written(jaxret, tmp_path, "--data", animals, "--teacher", "bm25")[0][0] == "qcat0"


@pytest.mark.parametrize("normalize", [None, "none"])
def test_a_fusion(jaxret, animals, triples, tmp_path, normalize):
    (one, first), (two, second) = table(tmp_path), table(tmp_path, "other", shift=1.5)
    more = () if normalize is None else ("--normalize", normalize)
    teachers = ("--teacher", one, "--teacher", two, "--weights", "0.75,0.5")
    rows = written(jaxret, tmp_path, "--data", animals, "--input", triples, *teachers, *more)
    for query, *pairs in rows:
        expected = [0.0] * len(pairs)
        for weight, scores in ((0.75, first), (0.5, second)):
            own = [scores[query][name] for name, _ in pairs]
            low, width = (0.0, 1.0) if normalize else (min(own), max(own) - min(own))
            expected = [total + weight * (score - low) / width for total, score in zip(expected, own, strict=True)]
        assert [score for _, score in pairs] == pytest.approx(expected)


def test_what_a_run_lacks(jaxret, animals, triples, tmp_path):
    write_run(Run.from_dict({"qcat0": {"cat0": 2.0, "cat1": 1.0}, "qhen3": {"hen3": 4.0}}), tmp_path / "r.trec")
    arguments = ("--data", animals, "--input", triples, "--teacher", tmp_path / "r.trec")
    result = jaxret("score", *arguments, "--output", tmp_path / "o.jsonl")
    refused(result, "no score for query 'qcat0' and document 'dog2'", "--missing lowest")
    assert not (tmp_path / "o.jsonl").exists()
    rows = written(jaxret, tmp_path, *arguments, "--missing", "lowest")
    assert rows[0] == ["qcat0", ["cat0", 2.0], ["cat1", 1.0], ["dog2", 1.0]]
    assert rows[1] == ["qhen3", ["hen3", 4.0], ["owl0", 4.0]]


def test_a_dry_run_reads_all_and_writes_nothing(jaxret, animals, triples, tmp_path):
    arguments = ("--data", animals, "--input", triples, "--teacher", "bm25", "--output", tmp_path / "o.jsonl")
    code, out, _ = jaxret("score", *arguments, "--dry_run")
    assert code == 0 and "3 lists with 1 x bm25 (none)" in out and not (tmp_path / "o.jsonl").exists()
    triples.write_text('["qcat0", "cat0"]\n["qcat0", "cat9"]\n')
    refused(jaxret("score", *arguments, "--dry_run"), "triples.jsonl:2", "cat9")


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (("--teacher", "bm25", "--weights", "1,2"), ["--weights", "2 for 1"]),
        (("--teacher", "bm25", "--weights", "a"), ["--weights", "0.7,0.3"]),
        (("--teacher", "bm25", "--normalize", "softmax"), ["--normalize", "z_score"]),
        (("--teacher", "bm25", "--missing", "zero"), ["--missing", "lowest"]),
        (("--teacher", "bm25", "--layout", "tevatron"), ["--layout", "colbert"]),
        (("--teacher", "bm25", "--batch_size", "0"), ["--batch_size"]),
        (("--teacher", "no/model"), ["no/model"]),
        (("--teacher", "bm25"), ["negatives.tsv", "jaxret mine"]),
    ],
)
def test_wrong_input(jaxret, animals, triples, tmp_path, more, parts, compilations):
    source = () if parts[0] == "negatives.tsv" else ("--input", triples)
    refused(jaxret("score", "--data", animals, *source, "--output", tmp_path / "o.jsonl", *more), *parts)
    assert not compilations


def test_nothing_to_score(jaxret, tmp_path):
    refused(jaxret("score", "--teacher", "bm25", "--output", tmp_path / "o.jsonl"), "--input FILE", "negatives.tsv")
