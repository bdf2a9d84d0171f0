"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from jaxret.errors import InputError

Data = Annotated[
    Path, typer.Option("--data", help="A BEIR folder (corpus.jsonl, queries.jsonl, qrels/), plain or .gz.")
]
Model = Annotated[
    Path, typer.Option("--model", help="A workdir, a folder of any published layout (docs/models.md), or hf:org/name.")
]
Step = Annotated[int | None, typer.Option("--step", help="Which checkpoint; the latest by default, 0 is untrained.")]
MeshShape = Annotated[str, typer.Option("--mesh_shape", help="Sizes of data,fsdp,tensor; one may be -1.")]
Distributed = Annotated[
    bool,
    typer.Option(
        "--distributed",
        help="Join the other processes of this job (TPU pods, Slurm, MPI, or JAX_COORDINATOR_ADDRESS).",
    ),
]
MemoryBudget = Annotated[
    float | None,
    typer.Option(
        "--memory_budget_gb",
        help="What the process may hold; a corpus that does not fit is streamed, a compressed one refused.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry_run", help="Check everything, print what would be done, do nothing.")]
NewFolder = Annotated[Path, typer.Option("--output", help="The folder to write; it must not exist yet.")]
Layout = Annotated[str, typer.Option("--layout", help="See docs/models.md; by default that of the (first) model.")]
Language = Annotated[str, typer.Option("--language", help="ISO 639 code of the documents, for BM25's analyser.")]
AnalyzerName = Annotated[
    str | None,
    typer.Option(
        "--analyzer",
        help="BM25's: words, 2-grams, letter-3-grams, snowball, amharic, mecab, or several joined with +; else the "
        "language's (docs/search.md).",
    ),
]


# As `search.fusion.weighted` has them; here for --help, which imports no NumPy.
NORMALIZATIONS = ("min_max", "z_score", "sum", "max", "rank", "none")


def parsed_mesh_shape(text: str) -> tuple[int, ...]:
    """`"-1,1,1"` as numbers."""
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise InputError("--mesh_shape", f"{text!r} is not a list of sizes", "Write it like -1,1,1.") from None


def parsed_weights(text: str, option: str = "--weights") -> list[float]:
    """`"0.7,0.3"` as numbers; "" as none."""
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise InputError(option, f"{text!r} is not a list of numbers", "Write it like 0.7,0.3.") from None


def check_choice(option: str, value: str, choices: Collection[str]) -> None:
    """InputError for a value that is none of the choices; it lists them."""
    if value not in choices:
        raise InputError(option, f"unknown {value!r}", f"Choose one of {', '.join(choices)}.")


def check_new(output: Path) -> None:
    """InputError for a folder that is there already."""
    if output.exists():
        raise InputError(output, "exists already", "Give a new folder.")
