import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from jaxret.train.progress import HISTORY, Reporter, history


def run(folder: Path, first: int, steps: list[int], loss: float) -> str:
    console = Console(file=io.StringIO(), width=100)
    with Reporter(folder / "tensorboard", first, 100, console) as report:
        for step in steps:
            report.log(step, {"loss": loss, "loss_dense": loss / 2}, {"examples_per_second": 80.0, "mfu": 1e-9})
    return console.file.getvalue()


def test_each_logged_step_is_a_line(tmp_path: Path):
    shown = run(tmp_path, 0, [10, 20], 3.0)
    rows = [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()]
    assert [(row["step"], row["loss"], row["loss_dense"]) for row in rows] == [(10, 3.0, 1.5), (20, 3.0, 1.5)]
    assert all(row["mfu"] > 0 for row in rows)
    assert [row["examples_per_second"] for row in rows] == pytest.approx([80e9 * row["mfu"] for row in rows])
    assert rows == history(tmp_path / HISTORY)
    assert "step 20/100  loss 3.000" in shown


def test_an_evaluation_joins_the_line_of_its_step(tmp_path: Path):
    console = Console(file=io.StringIO(), width=100)
    with Reporter(tmp_path / "tensorboard", 0, 100, console) as report:
        report.log(10, {"loss": 3.0}, {"examples_per_second": 80.0})
        report.evaluated(10, {"ndcg_at_10": 0.25}, 60.0)
        report.evaluated(15, {"ndcg_at_10": 0.5}, 60.0)
    rows = history(tmp_path / HISTORY)
    assert (rows[0]["loss"], rows[0]["eval/ndcg_at_10"]) == (3.0, 0.25)
    assert rows[1] == {"step": 15, "eval/ndcg_at_10": 0.5}
    assert "step 15/100  ndcg_at_10 0.5000  60 s" in console.file.getvalue()


def test_a_resumed_run_drops_what_it_will_log_again(tmp_path: Path):
    run(tmp_path, 0, [10, 20, 30, 40], 3.0)
    run(tmp_path, 25, [30, 40, 50], 1.0)
    rows = history(tmp_path / HISTORY)
    assert [(row["step"], row["loss"]) for row in rows] == [(10, 3.0), (20, 3.0), (30, 1.0), (40, 1.0), (50, 1.0)]
    assert len((tmp_path / HISTORY).read_text().splitlines()) == 5
    run(tmp_path, 20, [], 0.0)
    assert [row["step"] for row in history(tmp_path / HISTORY)] == [10, 20]


def test_an_unfinished_line_is_passed_over_and_mended(tmp_path: Path):
    run(tmp_path, 0, [10, 20], 3.0)
    path = tmp_path / HISTORY
    whole = path.read_bytes()
    for cut in range(len(whole) // 2 + 10, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert [row["step"] for row in history(path)] == [10], cut
    run(tmp_path, 10, [20], 2.0)
    assert [(row["step"], row["loss"]) for row in history(path)] == [(10, 3.0), (20, 2.0)]


def test_what_is_not_finite_is_null(tmp_path: Path):
    run(tmp_path, 0, [10], math.nan)
    assert "NaN" not in (tmp_path / HISTORY).read_text()
    assert history(tmp_path / HISTORY)[0]["loss"] is None
    run(tmp_path, 10, [20], 1.0)
    assert [row["loss"] for row in history(tmp_path / HISTORY)] == [None, 1.0]


def test_no_file_is_no_history(tmp_path: Path):
    assert history(tmp_path / HISTORY) == []
