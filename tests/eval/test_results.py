from __future__ import annotations

import csv
import json

import pytest

from jaxret.errors import InputError
from jaxret.eval.measures import parse_measure
from jaxret.eval.metrics import RULES
from jaxret.eval.results import mteb_result, write_results
from jaxret.search.run_files import read_run
from jaxret.search.runs import Run

QRELS = {"q1": {"a": 1}, "q2": {"b": 2, "c": 1}, "q3": {"a": 1}}
RUN = Run.from_dict({"q1": {"a": 2.0, "b": 1.0}, "q2": {"a": 2.0, "b": 1.0}})
MEASURES = [parse_measure(name) for name in ("mrr@10", "ndcg@10", "R@1")]


def written(folder, system, run=RUN):
    return write_results(folder, system, run, QRELS, MEASURES, "toy", "test")


def test_everything_is_written(tmp_path):
    entry = written(tmp_path, "dense")
    assert json.loads((tmp_path / "metrics.json").read_text()) == [entry]
    assert {key: entry[key] for key in ("system", "task_name", "split", "num_queries")} == {
        "system": "dense",
        "task_name": "toy",
        "split": "test",
        "num_queries": 3,
    }
    assert entry["scores"]["mrr_at_10"] == 0.5 and entry["scores"]["recall_at_1"] == pytest.approx(1 / 3)
    for key, (low, high) in entry["intervals"].items():
        assert 0 <= low <= entry["scores"][key] <= high <= 1
    assert entry["rules"].items() > RULES.items() and "bootstrap" in entry["rules"]["intervals"]
    with open(tmp_path / "metrics" / "dense.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["query-id"], row["mrr_at_10"]) for row in rows] == [
        ("q1", "1.000000"),
        ("q2", "0.500000"),
        ("q3", "0.000000"),
    ]
    assert read_run(tmp_path / "runs" / "dense.trec").to_dict() == RUN.to_dict()


def test_entries_are_replaced_and_kept(tmp_path):
    for name in ("bm25", "dense", "fusion"):
        written(tmp_path, name)
    again = written(tmp_path, "dense", Run.from_dict({"q3": {"a": 1.0}}))
    entries = json.loads((tmp_path / "metrics.json").read_text())
    assert [entry["system"] for entry in entries] == ["bm25", "dense", "fusion"]
    assert entries[1] == again and entries[0]["scores"] != again["scores"]


def test_mteb_shape(tmp_path):
    entry = written(tmp_path, "dense")
    result = mteb_result(entry, ["jpn-Jpan"])
    assert isinstance(result["dataset_revision"], str) and result["task_name"] == "toy"
    assert {"mteb_version", "evaluation_time", "kg_co2_emissions"} <= result.keys()
    (row,) = result["scores"]["test"]
    assert row["main_score"] == row["ndcg_at_10"] == entry["scores"]["ndcg_at_10"]
    assert (row["hf_subset"], row["languages"]) == ("default", ["jpn-Jpan"])
    assert json.loads((tmp_path / "metrics" / "dense.json").read_text()) == mteb_result(entry)


def test_nothing_to_measure(tmp_path):
    with pytest.raises(InputError, match="split 'dev' judges no query"):
        write_results(tmp_path, "dense", RUN, {}, MEASURES, "toy", "dev")


@pytest.mark.parametrize("text", ['{"system": "dense"}', '[{"name": "dense"}]', "[1]", "[{"])
def test_foreign_metrics_are_left_alone(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.json"):
        written(tmp_path, "dense")
    assert (tmp_path / "metrics.json").read_text() == text and not (tmp_path / "runs").exists()
