"""All systems in one table, and the sentences that sum it up."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxret.eval.report.results import UNTRAINED, Results, System

LEAD = "ndcg_at_10"
MEASURES = {LEAD: "nDCG@10", "mrr_at_10": "MRR@10", "recall_at_1": "Recall@1", "recall_at_10": "Recall@10"}
WIDTH = 100


def rival(results: Results) -> System | None:
    """What the best system is held against: BM25, or the second best where BM25 is best or missing."""
    others = [system for system in results.systems if system is not results.best(LEAD)]
    if not others:
        return None
    return next((system for system in others if system.name == "bm25"), Results(results.folder, others).best(LEAD))


def headline(results: Results) -> str:
    """Which system is best, and by how much."""
    best, other = results.best(LEAD), rival(results)
    sentence = f"{best.label} is best with {MEASURES[LEAD]} {best.scores[LEAD]:.3f}"
    return f"{sentence}, {best.scores[LEAD] - other.scores[LEAD]:.3f} above {other.label}" if other else sentence


def training_gain(results: Results, name: str) -> str | None:
    """What training did for a representation; None where its untrained twin was not evaluated."""
    if name not in results or UNTRAINED + name not in results:
        return None
    after, before = results[name], results[UNTRAINED + name]
    return f"Training took {after.label} from {before.scores[LEAD]:.3f} to {after.scores[LEAD]:.3f}."


def leaderboard(results: Results, *, plain: bool) -> Table:
    """The table for a terminal; the best value of each measure is bold, or starred in a plain one."""
    table = Table(
        box=box.ASCII if plain else box.SIMPLE_HEAD, title=headline(results), title_style="", title_justify="left"
    )
    table.add_column("system", no_wrap=True)
    for key, name in MEASURES.items():
        table.add_column(name, justify="right", no_wrap=True)
        if key == LEAD:
            table.add_column("95% interval", no_wrap=True)
    for system in results.systems:
        cells = [Text(system.label)]
        for key in MEASURES:
            cells.append(_cell(system.scores[key], results.is_best(system, key), plain))
            if key == LEAD:
                cells.append(Text(interval_text(system, key), style="" if plain else "dim"))
        table.add_row(*cells)
    return table


def print_leaderboard(results: Results) -> None:
    """Prints the table on standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    console.print(leaderboard(results, plain=not console.is_terminal))


def interval_text(system: System, key: str) -> str:
    """`0.780–0.801`; empty where there is no interval."""
    return "–".join(f"{end:.3f}" for end in system.intervals.get(key, ()))


def _cell(value: float, best: bool, plain: bool) -> Text:
    if plain:
        return Text(f"{value:.3f}{'*' if best else ' '}")
    return Text(f"{value:.3f}", style="bold" if best else "")
