"""`jaxret fuse`: several runs into one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxret.cli.mine import check_output
from jaxret.cli.options import NORMALIZATIONS, DryRun, check_choice, parsed_weights
from jaxret.errors import InputError

if TYPE_CHECKING:
    from jaxret.search.runs import Run

METHODS = ("rrf", "weighted")
MISSING = ("lowest", "zero")


def fuse(
    runs: Annotated[list[Path], typer.Option("--run", help="Twice or more: TREC, three columns, or ColBERT rankings.")],
    output: Annotated[Path, typer.Option("--output", help="The TREC run file to write.")],
    method: Annotated[
        str, typer.Option("--method", help="rrf (sums of 1 / (k + rank)) or weighted (sums of normalised scores).")
    ] = "rrf",
    weights: Annotated[str, typer.Option("--weights", help="One for each run, e.g. 0.7,0.3; else 1 for each.")] = "",
    normalization: Annotated[
        str | None,
        typer.Option(
            "--normalization",
            help=f"With weighted: {', '.join(NORMALIZATIONS)}, within a query's results; min_max if left out.",
        ),
    ] = None,
    missing: Annotated[
        str | None,
        typer.Option(
            "--missing", help="With weighted, what a run adds for a document it lacks: lowest (if left out) or zero."
        ),
    ] = None,
    k: Annotated[int | None, typer.Option("--k", help="With rrf: the constant; 60 if left out.")] = None,
    depth: Annotated[int, typer.Option("--depth", help="How many results of a query are written.")] = 1000,
    tag: Annotated[str, typer.Option("--tag", help="The last column of the run file.")] = "jaxret",
    dry_run: DryRun = False,
) -> None:
    """Fuses runs by reciprocal ranks, or by weighted sums of scores; ties go by document id, as trec_eval has them."""
    from jaxret.search.fusion import reciprocal_rank, weighted
    from jaxret.search.run_files import read_run, write_run
    from jaxret.search.runs import first

    check_output(output)
    settings = _settings(runs, method, parsed_weights(weights), normalization, missing, k, depth)
    found = [read_run(path) for path in runs]
    queries = len({query for run in found for query in run.query_ids})
    if dry_run:
        print(f"would fuse {queries} queries of {', '.join(map(str, runs))} by {method} into {output}")
        return
    fused: Run
    if method == "rrf":
        fused = reciprocal_rank(found, settings["weights"], settings["k"])
    else:
        fused = weighted(found, settings["weights"], settings["normalization"], settings["missing"])
    write_run(first(fused, depth), output, tag)
    _record(output, runs, {**settings, "tag": tag})
    print(f"{output}: {queries} queries")


def _settings(
    runs: Sequence[Path],
    method: str,
    weights: list[float],
    normalization: str | None,
    missing: str | None,
    k: int | None,
    depth: int,
) -> dict[str, Any]:
    """The settings with their defaults; InputError for those that do not fit together."""
    check_choice("--method", method, METHODS)
    if len(runs) < 2:
        raise InputError("--run", "there is one run only", "Give --run twice or more.")
    if weights and len(weights) != len(runs):
        raise InputError("--weights", f"{len(weights)} for {len(runs)} runs", "Give one for each run.")
    if depth < 1:
        raise InputError("--depth", f"{depth} is less than 1", "Give 1 or more.")
    settings = {"method": method, "weights": weights or [1.0] * len(runs), "depth": depth}
    if method == "rrf":
        for option, value in (("--normalization", normalization), ("--missing", missing)):
            if value is not None:
                raise InputError(option, "is not for rrf, which has ranks only", "Leave it out, or --method weighted.")
        if k is not None and k < 0:
            raise InputError("--k", f"{k} is less than 0", "Give 0 or more.")
        return settings | {"k": 60 if k is None else k}
    if k is not None:
        raise InputError("--k", "is not for weighted", "Leave it out, or give --method rrf.")
    check_choice("--normalization", normalization or "min_max", NORMALIZATIONS)
    check_choice("--missing", missing or "lowest", MISSING)
    return settings | {"normalization": normalization or "min_max", "missing": missing or "lowest"}


def _record(output: Path, runs: Sequence[Path], settings: dict[str, Any]) -> None:
    from jaxret.files import existing, sha256, write_json
    from jaxret.runtime.manifest import manifest

    inputs = [{"run": str(path), "sha256": sha256(existing(path))} for path in runs]
    record = manifest(data={"runs": inputs}, output_sha256=sha256(output), settings=settings)
    write_json(output.with_name(f"{output.name}.manifest.json"), record)
