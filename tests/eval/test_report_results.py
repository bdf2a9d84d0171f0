import json
from pathlib import Path

import pytest

from jaxret.errors import InputError
from jaxret.eval.report.results import read_results
from tests.eval.report_inputs import RANKS, values, write_results

LEAD = "ndcg_at_10"


def read(folder: Path):
    return read_results(folder, "test", (LEAD,))


def test_systems_come_in_reading_order_with_labels(tmp_path: Path):
    entries = [
        {"system": name, "scores": {LEAD: 0.5}}
        for name in ("mine", "fusion", "multi_vector", "untrained_multi_vector", "dense", "bm25")
    ]
    (tmp_path / "metrics.json").write_text(json.dumps(entries))
    found = read(tmp_path)
    assert [system.name for system in found.systems] == [
        "bm25",
        "untrained_multi_vector",
        "dense",
        "multi_vector",
        "fusion",
        "mine",
    ]
    assert [system.label for system in found.systems[:2]] == ["BM25", "multi-vector, untrained"]


def test_values_and_ranking_of_each_query(tmp_path: Path):
    found = read(write_results(tmp_path)).per_query("multi_vector", LEAD, ["q0", "q7"])
    for i, rank in enumerate(RANKS["multi_vector"]):
        assert found.values[f"q{i}"] == pytest.approx(values(rank)[LEAD], abs=1e-6)
        place = found.ranking[f"q{i}"].index(f"d{i}") + 1 if f"d{i}" in found.ranking[f"q{i}"] else None
        assert place == rank


def test_missing_metrics_names_the_file_and_the_command(tmp_path: Path):
    with pytest.raises(InputError, match=r"metrics\.json: no such file.*jaxret evaluate"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[\n{", r"metrics\.json:2: broken JSON"),
        ("{}", "not a list"),
        ("[]", "empty"),
        ('[{"scores": {}}]', "not an entry"),
        ('[{"system": "a", "scores": 3}]', "not an entry"),
        ('[{"system": "a", "scores": {"mrr_at_10": 1}}]', "'a' has no ndcg_at_10"),
        ('[{"system": "a", "split": "dev", "scores": {"ndcg_at_10": 1}}]', "is of split 'dev', not 'test'"),
        (
            '[{"system": "a", "scores": {"ndcg_at_10": 1}}, {"system": "a", "scores": {"ndcg_at_10": 0}}]',
            "'a' is there twice",
        ),
    ],
)
def test_bad_metrics(tmp_path: Path, text: str, message: str):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_a_system_without_its_run_or_table(tmp_path: Path):
    found = read(write_results(tmp_path))
    (tmp_path / "runs/bm25.trec").unlink()
    with pytest.raises(InputError, match=r"runs/bm25\.trec: no such file"):
        found.per_query("bm25", LEAD, ["q0"])
    with pytest.raises(InputError, match=r"multi_vector\.tsv: no row for the judged query 'q99'"):
        found.per_query("multi_vector", LEAD, ["q99"])
    with pytest.raises(InputError, match=r"multi_vector\.tsv: no column 'map_at_3'"):
        found.per_query("multi_vector", "map_at_3", ["q0"])
    table = tmp_path / "metrics/multi_vector.tsv"
    table.write_text(table.read_text().replace("q1\t1.000000", "q1\tnan"))
    with pytest.raises(InputError, match=r"multi_vector\.tsv:3: ndcg_at_10 'nan' is not a finite number"):
        found.per_query("multi_vector", LEAD, ["q0"])
