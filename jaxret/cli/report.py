"""`jaxret report`: the leaderboard on the terminal, and a page that explains it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxret.cli.options import Data, DryRun, MeshShape, Model, Step
from jaxret.errors import InputError


def report(
    results: Annotated[
        Path, typer.Option("--results", help="The folder that jaxret evaluate wrote, with metrics.json.")
    ],
    model: Model,
    data: Data,
    split: Annotated[str, typer.Option("--split", help="Which qrels the results are of.")] = "test",
    output: Annotated[
        Path | None, typer.Option("--output", help="The page; report.html in --results by default.")
    ] = None,
    examples: Annotated[int, typer.Option("--examples", help="Wins, and as many losses, shown token by token.")] = 2,
    step: Step = None,
    mesh_shape: MeshShape = "-1,1,1",
    dry_run: DryRun = False,
) -> None:
    """Prints a leaderboard and writes a self-contained page: metrics, training, wins and losses, alignments."""
    from jaxret.data.beir import BeirFolder
    from jaxret.eval.report.leaderboard import MEASURES, print_leaderboard
    from jaxret.eval.report.results import read_results

    if examples < 0:
        raise InputError("--examples", f"{examples} is negative", "Give 0 or more.")
    read = read_results(results, split, tuple(MEASURES))
    folder = BeirFolder(data).validated(split)
    page = results / "report.html" if output is None else output

    from jaxret.cli.encode import text_encoder
    from jaxret.eval.report.page import write_page

    encoder, step = text_encoder(model, step, mesh_shape)
    if dry_run:
        print(f"would report on {len(read.systems)} systems of {results} with step {step} of {model} into {page}")
        return
    print_leaderboard(read)
    write_page(page, read, folder, split, model, encoder, examples)
    print(f"{page}: {len(read.systems)} systems")
