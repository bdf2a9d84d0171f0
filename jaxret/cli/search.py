"""`jaxret search`: questions at the prompt, passages with the matched words highlighted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxret.cli.options import Distributed, DryRun, MemoryBudget, MeshShape
from jaxret.errors import InputError

if TYPE_CHECKING:
    from jaxret.search.engine import Engine, Hit
    from jaxret.search.runs import Run

CONTEXT = 60
LONGEST = 240


def search(
    question: Annotated[str | None, typer.Argument(help="Asked once; without it, a prompt asks.")] = None,
    index: Annotated[Path, typer.Option("--index", help="What jaxret index made.")] = Path("runs/demo/index"),
    mode: Annotated[str, typer.Option("--mode", help="multi_vector, dense, lexical, plaid or bm25.")] = "multi_vector",
    k: Annotated[int | None, typer.Option("--k", help="Results a question; 3, or 1000 of --queries.")] = None,
    queries: Annotated[
        Path | None,
        typer.Option("--queries", help="JSON lines, qid<TAB>text, or a BEIR folder; for --output."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Of the folder's queries, those of these qrels.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="The TREC run file of --queries.")] = None,
    tag: Annotated[str, typer.Option("--tag", help="The last column of the run file.")] = "jaxret",
    ncells: Annotated[
        int | None, typer.Option("--ncells", help="Of plaid: cells a token of the query; 0 looks at every document.")
    ] = None,
    centroid_score_threshold: Annotated[
        float | None, typer.Option("--centroid_score_threshold", help="Of plaid: lower centroids count as none.")
    ] = None,
    ndocs: Annotated[
        int | None, typer.Option("--ndocs", help="Of plaid: documents after the first cut, 4 x k or more.")
    ] = None,
    memory_budget_gb: MemoryBudget = None,
    mesh_shape: MeshShape = "-1,1,1",
    distributed: Distributed = False,
    dry_run: DryRun = False,
) -> None:
    """Answers questions from an index, or writes the run of a file of queries.

    Of several processes (--distributed) each searches its share of the shards; the first of them answers.
    """
    from rich.console import Console

    from jaxret.cli.encode import text_encoder
    from jaxret.cli.progress import progress
    from jaxret.data.query_files import queries_file
    from jaxret.files import sha256
    from jaxret.runtime.processes import one_job
    from jaxret.search.engine import Engine
    from jaxret.search.index import load_index

    together = _asked_together(question, queries, split, output)
    pruning = _pruning(mode, ncells=ncells, centroid_score_threshold=centroid_score_threshold, ndocs=ndocs)
    if distributed and question is None and together is None:
        raise InputError("--distributed", "one process alone has a prompt", "Give a question, or --queries.")
    with one_job(distributed) as share:
        opened = load_index(index, parts_held=None if memory_budget_gb is None else 1)
        made, count = opened.description, len(opened.documents)
        if k is None:
            k = min(3 if together is None else 1000, count)
        encoder = None if mode == "bm25" else text_encoder(made.model, made.step, mesh_shape)[0]
        engine = Engine(opened, encoder, mode, k, memory_budget_gb, share, pruning)
        console = Console(highlight=False, quiet=share[0] > 0)
        if dry_run:
            console.print(f"would search {count} documents of {index} by {mode}")
        elif together is not None and output is not None and queries is not None:
            run = engine.run(*together, None if share[0] else progress)
            if share[0] == 0:
                settings = {"mode": mode, "k": k, "index": str(index), "corpus": made.corpus}
                settings |= {"queries": str(queries), "queries_sha256": sha256(queries_file(queries)), "split": split}
                settings |= {"memory_budget_gb": memory_budget_gb, "tag": tag}
                _write_run(run, output, settings, engine.facts)
        elif question is not None:
            show(console, engine(question))
        else:
            console.print(f"{count} documents, {mode}. An empty line or Ctrl-D ends.", style="dim")
            _prompt(console, engine)


def _asked_together(
    question: str | None, queries: Path | None, split: str | None, output: Path | None
) -> tuple[list[str], list[str]] | None:
    """Ids and texts of --queries; InputError where the options do not fit together."""
    from jaxret.cli.mine import check_output
    from jaxret.data.query_files import queries_from

    if queries is None or output is None:
        for option, value, other in (("--queries", queries, "--output"), ("--output", output, "--queries")):
            if value is not None:
                raise InputError(option, f"is given without {other}", "Give both, or neither and a question.")
        return None
    if question is not None:
        raise InputError("question", "is given beside --queries", "Give one of them.")
    check_output(output)
    return queries_from(queries, split)


def _pruning(mode: str, **settings: float | int | None) -> dict[str, Any]:
    """What is given of plaid's settings; InputError for another mode."""
    given = {name: value for name, value in settings.items() if value is not None}
    if given and mode != "plaid":
        raise InputError(f"--{next(iter(given))}", f"{mode} looks at every document", "Leave it out, or use plaid.")
    return given


def _write_run(run: Run, output: Path, settings: dict[str, Any], facts: dict[str, Any]) -> None:
    """The run file and its manifest."""
    from jaxret.files import sha256, write_json
    from jaxret.runtime.manifest import manifest
    from jaxret.search.run_files import write_run

    write_run(run, output, settings["tag"])
    record = manifest(output_sha256=sha256(output), settings=settings, **facts)
    write_json(output.with_name(f"{output.name}.manifest.json"), record)
    print(f"{output}: {len(run)} queries")


def _prompt(console, engine: Engine) -> None:
    """Answers what is typed, until nothing is."""
    while typed := _asked():
        try:
            show(console, engine(typed))
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
