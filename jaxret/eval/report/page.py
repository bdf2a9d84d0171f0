"""The report as one HTML page that needs nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jaxret.data.beir import BeirFolder
from jaxret.data.beir_rows import Qrels
from jaxret.errors import InputError
from jaxret.eval.intervals import Difference
from jaxret.eval.report import leaderboard
from jaxret.eval.report.charts import Bar, bar_chart, line_chart
from jaxret.eval.report.duel import BUCKETS, NOT_FOUND, Duel, Outcome, duel, gap
from jaxret.eval.report.examples import examples
from jaxret.eval.report.results import UNTRAINED, Results
from jaxret.files import atomic, read_json
from jaxret.search.encode import TextEncoder
from jaxret.train.progress import HISTORY, history

SUBJECTS = ("multi_vector", "dense", "lexical")
CURVES = {"loss": "Loss", "accuracy": "In-batch accuracy", "examples_per_second": "Examples per second"}
KEY_FACTS = ("jaxret", "commit", "versions.jax", "seed", "steps", "global_batch_size", "device_kind", "num_devices")
LISTED = 8  # wins and losses in a table


def page(results: Results, data: BeirFolder, split: str, workdir: Path, encoder: TextEncoder, count: int) -> str:
    """The page as HTML.

    Args:
      results: the results folder, of `split` of `data`.
      data: queries, corpus and qrels.
      split: which qrels.
      workdir: the training run of the model: training.jsonl and manifest.json.
      encoder: the model.
      count: how many wins and how many losses are aligned token by token.

    Raises:
      InputError: a file is missing, broken, or about something else.
    """
    qrels = data.qrels(split)
    fought = duels(results, qrels)
    aligns = fought and fought[0].system.name == "multi_vector" and "multi_vector" in encoder.model.config.heads
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html").render(
        results=results,
        data=data,
        split=split,
        measures=leaderboard.MEASURES,
        lead=leaderboard.LEAD,
        headline=leaderboard.headline(results),
        lead_over_rival=lead_over_rival(results, qrels),
        gains=[gain for name in SUBJECTS if (gain := leaderboard.training_gain(results, name))],
        interval_text=leaderboard.interval_text,
        bars={key: bars(results, key) for key in leaderboard.MEASURES},
        curves=curves(workdir),
        duels=fought,
        buckets=[name for name, _ in BUCKETS] + [NOT_FOUND],
        listed=LISTED,
        described=lambda outcome: described(outcome, data),
        examples=examples(fought[0], data, split, encoder, count) if aligns else [],
        flat=flat,
        rules=distinct([system.facts.get("rules") for system in results.systems]),
        manifests=manifests(workdir, results),
        key_facts=KEY_FACTS,
    )


def write_page(
    path: Path, results: Results, data: BeirFolder, split: str, workdir: Path, encoder: TextEncoder, count: int
) -> None:
    """Writes `page`, all of it or nothing."""
    html = page(results, data, split, workdir, encoder, count)
    with atomic(path) as file:
        file.write(html)


def duels(results: Results, qrels: Qrels) -> list[Duel]:
    """The model's best kind of representation against BM25 and against itself untrained, as far as they are there."""
    subject = next((name for name in SUBJECTS if name in results), None)
    baselines = [name for name in ("bm25", f"{UNTRAINED}{subject}") if name in results]
    if subject is None or not baselines:
        return []
    system = results.per_query(subject, leaderboard.LEAD, qrels)
    return [duel(system, results.per_query(name, leaderboard.LEAD, qrels), qrels) for name in baselines]


def lead_over_rival(results: Results, qrels: Qrels) -> Difference | None:
    """By how much the best system leads, query by query."""
    best, other = results.best(leaderboard.LEAD), leaderboard.rival(results)
    if other is None:
        return None
    values, others = (results.values(system.name, leaderboard.LEAD, qrels) for system in (best, other))
    return gap(values, others, qrels)


def bars(results: Results, key: str) -> Markup:
    """The bar chart of one measure."""
    return bar_chart(
        [Bar(s.label, s.scores[key], s.intervals.get(key), results.is_best(s, key)) for s in results.systems]
    )


def curves(workdir: Path) -> dict[str, tuple[Markup, dict[str, float]]]:
    """Charts of the training by title, each with the last value of its lines.

    Raises:
      InputError: the training logged nothing.
    """
    rows = history(workdir / HISTORY)
    if not rows:
        raise InputError(workdir / HISTORY, "no logged step", "Give --model the workdir of a training run.")
    charts = {}
    for stem, title in CURVES.items():
        names = {
            name: name.removeprefix(stem).strip("_") or "all" for row in rows for name in row if _is_of(name, stem)
        }
        series = {
            shown: points
            for name, shown in names.items()
            if (points := [(row["step"], float(row[name])) for row in rows if row.get(name) is not None])
        }
        if series:
            charts[title] = line_chart(series), {shown: points[-1][1] for shown, points in series.items()}
    return charts


def _is_of(name: str, stem: str) -> bool:
    return name == stem or name.startswith(stem + "_")


def described(outcome: Outcome, data: BeirFolder) -> tuple[str, str]:
    """The query's text, and the relevant document's title, or its beginning where it has none."""
    row = data.corpus.row_of[outcome.document]
    query = data.queries.texts[data.queries.row_of[outcome.query_id]]
    return query, data.corpus.titles[row] or data.corpus.texts[row][:40]


def distinct(values: Sequence[Any]) -> list[Any]:
    """The values that are not None, each once."""
    return [value for i, value in enumerate(values) if value is not None and value not in values[:i]]


def manifests(workdir: Path, results: Results) -> dict[str, dict[str, str]]:
    """The facts of the manifests that are there, of the training and of each system's evaluation."""
    paths = {"Training": workdir / "manifest.json"}
    paths |= {f"Evaluation of {s.label}": results.folder / "manifests" / f"{s.name}.json" for s in results.systems}
    return {name: flat(read_json(path)) for name, path in paths.items() if path.exists()}


def flat(value: Any, name: str = "") -> dict[str, str]:
    """A JSON value as {dotted name: text}; lists stay in one piece."""
    if isinstance(value, Mapping):
        inner = [flat(part, f"{name}.{key}" if name else str(key)) for key, part in value.items()]
        return {key: text for part in inner for key, text in part.items()}
    return {name: " ".join(map(str, value)) if isinstance(value, list) else str(value)}
