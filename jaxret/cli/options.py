"""Options that several commands share."""

from __future__ import annotations

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
DryRun = Annotated[bool, typer.Option("--dry_run", help="Check everything, print what would be done, do nothing.")]
Language = Annotated[str, typer.Option("--language", help="ISO 639 code of the documents, for BM25's analyser.")]


def parsed_mesh_shape(text: str) -> tuple[int, ...]:
    """`"-1,1,1"` as numbers."""
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise InputError("--mesh_shape", f"{text!r} is not a list of sizes", "Write it like -1,1,1.") from None
