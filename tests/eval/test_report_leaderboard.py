import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from jaxret.eval.report.leaderboard import (
    MEASURES,
    headline,
    interval_text,
    leaderboard,
    print_leaderboard,
    training_gain,
)
from jaxret.eval.report.results import Results, System, read_results
from tests.eval.report_inputs import write_results


def system(name: str, value: float) -> System:
    return System(name, dict.fromkeys(MEASURES, value), {"ndcg_at_10": (value - 0.01, value + 0.01)}, {})


def results(**values: float) -> Results:
    return Results(Path("r"), [system(name, value) for name, value in values.items()])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (results(bm25=0.9, dense=0.5, fusion=0.95), "BM25 + multi-vector is best with nDCG@10 0.950, 0.050 above BM25"),
        (results(bm25=0.9, dense=0.5), "BM25 is best with nDCG@10 0.900, 0.400 above dense"),
        (results(dense=0.5, lexical=0.25), "dense is best with nDCG@10 0.500, 0.250 above lexical"),
        (results(bm25=0.5), "BM25 is best with nDCG@10 0.500"),
    ],
)
def test_headline(found: Results, expected: str):
    assert headline(found) == expected


def test_training_gain_needs_the_untrained_twin():
    found = results(dense=0.6, untrained_dense=0.1, multi_vector=0.7)
    assert training_gain(found, "dense") == "Training took dense from 0.100 to 0.600."
    assert training_gain(found, "multi_vector") is None


def test_every_number_is_in_the_table_and_it_fits_100_columns(tmp_path: Path, capsys: pytest.CaptureFixture):
    found = read_results(write_results(tmp_path), "test", tuple(MEASURES))
    print_leaderboard(found)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    for one in found.systems:
        line = next(line for line in lines if line.startswith(f"| {one.label} "))
        shown = [cell.strip() for cell in line.strip("|").split("|")]
        assert shown[2] == interval_text(one, "ndcg_at_10")
        del shown[2]
        for cell, key in zip(shown[1:], MEASURES, strict=True):
            starred = "*" if one.scores[key] == max(s.scores[key] for s in found.systems) else ""
            assert cell == f"{one.scores[key]:.3f}{starred}"


def test_on_a_terminal_the_best_are_bold():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system="standard")
    console.print(leaderboard(results(bm25=0.9, dense=0.5), plain=False))
    text = console.file.getvalue()
    assert len(re.findall(r"\x1b\[1m *0\.900\x1b", text)) == 4 and not re.search(r"\x1b\[1m *0\.500", text)
