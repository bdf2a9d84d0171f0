"""`jaxret search`: questions at the prompt, passages with the matched words highlighted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxret.cli.options import DryRun, MeshShape

if TYPE_CHECKING:
    from jaxret.search.engine import Hit

CONTEXT = 60
LONGEST = 240


def search(
    question: Annotated[str | None, typer.Argument(help="Asked once; without it, a prompt asks.")] = None,
    index: Annotated[Path, typer.Option("--index", help="What jaxret index made.")] = Path("runs/demo/index"),
    mode: Annotated[str, typer.Option("--mode", help="multi_vector, dense, lexical or bm25.")] = "multi_vector",
    k: Annotated[int, typer.Option("--k", help="Results a question.")] = 3,
    mesh_shape: MeshShape = "-1,1,1",
    dry_run: DryRun = False,
) -> None:
    """Answers questions from an index."""
    from rich.console import Console

    from jaxret.cli.encode import text_encoder
    from jaxret.errors import InputError
    from jaxret.search.engine import Engine
    from jaxret.search.index import load_index

    opened = load_index(index)
    encoder = None if mode == "bm25" else text_encoder(opened.workdir, opened.step, mesh_shape)[0]
    engine = Engine(opened, encoder, mode, k)
    console = Console(highlight=False)
    if dry_run:
        console.print(f"would search {len(opened.documents)} documents of {index} by {mode}")
        return
    if question is not None:
        show(console, engine(question))
        return
    console.print(f"{len(opened.documents)} documents, {mode}. An empty line or Ctrl-D ends.", style="dim")
    while asked := _asked():
        try:
            show(console, engine(asked))
        except InputError as error:
            console.print(str(error), style="red")


def show(console, hits: list[Hit]) -> None:
    """Prints rank, score, title and the passage around its first match."""
    from rich.text import Text

    for rank, hit in enumerate(hits, 1):
        heading = Text.assemble((f"{rank}. ", "bold"), (hit.document.title, "bold cyan"), (f"  {hit.score:.3f}", "dim"))
        console.print(heading, Text(f" {hit.document.id}", "dim"))
        text = Text(hit.document.text)
        for begin, end in hit.spans:
            text.stylize("bold yellow", begin, end)
        begin = max(0, (hit.spans[0][0] if hit.spans else 0) - CONTEXT)
        shown = text[begin : begin + LONGEST]
        shown.rstrip()
        ends = ("… " if begin else "", " …" if begin + LONGEST < len(text) else "")
        console.print(Text.assemble(ends[0], Text("").join([shown]), ends[1]))
        console.print()


def _asked() -> str:
    try:
        return input("question> ").strip()
    except EOFError:
        return ""
