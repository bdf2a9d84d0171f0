import html
import json
import re
from pathlib import Path

import jax
import pytest

from jaxret.data.beir import BeirFolder
from jaxret.errors import InputError
from jaxret.eval.report.leaderboard import MEASURES
from jaxret.eval.report.page import curves, flat, page
from jaxret.eval.report.results import read_results
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import load_model
from jaxret.search.encode import TextEncoder
from tests.eval.report_inputs import HOSTILE, RANKS, write_data, write_model, write_results

OUTSIDE = re.compile(
    r"""(?:src|href|action|data|poster|srcset)\s*=|url\(|@import|<(?:script|link|iframe|object|embed|img)\b"""
)


@pytest.fixture(scope="module")
def report_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def report_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def encoder(report_model: Path) -> TextEncoder:
    mesh = device_mesh((1, 1, 1), jax.devices()[:1])
    model, params, _ = load_model(report_model, mesh)
    return TextEncoder(model, params, mesh, batch_tokens=256)


@pytest.fixture(scope="module")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def text(results_folder: Path, report_data: Path, report_model: Path, encoder) -> str:
    results = read_results(results_folder, "test", tuple(MEASURES))
    return page(results, BeirFolder(report_data), "test", report_model, encoder, 2)


def section(text: str, name: str) -> str:
    return re.search(rf'<section id="{name}">(.*?)</section>', text, re.S)[1]


def cells(row: str) -> list[str]:
    return [html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in re.split(r"<t[dh]\b[^>]*>", row)[1:]]


def test_numbers_are_those_of_metrics_json(text: str, results_folder: Path):
    board = section(text, "leaderboard")
    for entry in json.loads((results_folder / "metrics.json").read_text()):
        row = re.search(rf"<tr>(?:(?!<tr>).)*<code>{entry['system']}</code>.*?(?=<tr>|</tbody>)", board, re.S)[0]
        numbers = re.findall(r"\d\.\d{3}", row)
        low, high = entry["intervals"]["ndcg_at_10"]
        lead, *rest = (entry["scores"][key] for key in MEASURES)
        assert numbers == [f"{value:.3f}" for value in (lead, low, high, *rest)]


def test_hostile_text_is_text(text: str):
    assert html.escape(HOSTILE).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in text
    assert "<script" not in text and "<img" not in text


def test_nothing_comes_from_outside(text: str):
    markup = "".join(re.findall(r"<[^>]*>", text)) + "".join(re.findall(r"<style>.*?</style>", text, re.S))
    assert not OUTSIDE.search(markup), OUTSIDE.search(markup)
    assert "http:" not in markup and "https:" not in markup
    assert len(text.encode()) < 1_000_000


def test_wins_and_losses(text: str):
    queries = section(text, "queries")
    for baseline in ("bm25", "untrained_multi_vector"):
        pairs = zip(RANKS["multi_vector"], RANKS[baseline], strict=True)
        values = [[1 / r if r and r <= 10 else 0 for r in pair] for pair in pairs]
        won, lost = sum(a > b for a, b in values), sum(a < b for a, b in values)
        expected = rf"<b>{won}</b> won</span>.*?<b>{8 - won - lost}</b> tied</span>.*?<b>{lost}</b> lost"
        assert re.search(expected, queries, re.S)
    table = re.search(r"Biggest wins.*?<tbody>(.*?)</tbody>", queries, re.S)[1]
    first, second = (cells(row) for row in table.split("<tr>")[1:3])
    assert first[0].endswith(HOSTILE) and first[1:] == [HOSTILE, "1", "–"]
    assert second[1:] == ["題名1", "1", "2"]


def test_alignment_of_wins_and_losses(text: str):
    articles = re.findall(r"<article>(.*?)</article>", section(text, "alignment"), re.S)
    assert [re.search(r"<h3>(\w+)", article)[1] for article in articles] == ["Won", "Won", "Lost", "Lost"]
    assert [article.count("<table") for article in articles] == [1, 1, 2, 2]
    for table in re.findall(r"<table class=\"heat\">.*?</table>", "".join(articles), re.S):
        assert len(re.findall(r'class="h\d c"', table)) == 24  # one choice a query token
        words = [float(score) for score in re.findall(r'<td class="n"[^>]*>(-?[\d.]+)', table)]
        assert sum(words[:-1]) == pytest.approx(words[-1], abs=0.02 * len(words))
    assert "[MASK] ×" in articles[1] and "<mark>" in articles[1]


def test_manifest_and_rules(text: str):
    facts = section(text, "facts")
    for fact in (
        "by document id",
        "0123abc",
        "17",
        "versions.jax",
        "9.9",
        "Evaluation of BM25",
        "f-untrained_multi_vector",
    ):
        assert fact in facts


def test_parts_without_input_are_left_out(tmp_path: Path, report_data: Path, report_model: Path, encoder):
    results = read_results(write_results(tmp_path, ("bm25",)), "test", tuple(MEASURES))
    alone = page(results, BeirFolder(report_data), "test", report_model, encoder, 1)
    assert 'id="leaderboard"' in alone and 'id="queries"' not in alone and 'id="alignment"' not in alone


def test_curves_pass_over_what_was_not_finite(tmp_path: Path):
    with pytest.raises(InputError, match=r"training\.jsonl: no logged step"):
        curves(tmp_path)
    rows = [{"step": 1, "loss": 2.0, "loss_dense": 2.0}, {"step": 2, "loss": None, "loss_dense": 1.0}]
    (tmp_path / "training.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert curves(tmp_path)["Loss"][1] == {"all": 2.0, "dense": 1.0}


def test_flat():
    assert flat({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": "1", "a.c": "1 2", "d": "None"}
