"""`jaxret rerank`: the first documents of a run in the order of a better, slower system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxret.cli import systems
from jaxret.cli.mine import check_output
from jaxret.cli.options import AnalyzerName, Data, DryRun, Language, MeshShape, check_choice
from jaxret.errors import InputError

if TYPE_CHECKING:
    from jaxret.search.rankers import Ranker

RESTS = ("keep", "drop")
MODELS = (
    "A cross-encoder or a retriever (a workdir, a folder, hf:org/name), or what jaxret index made; @MODE may follow."
)


def rerank(
    model: Annotated[str, typer.Option("--model", help=MODELS)],
    run: Annotated[Path, typer.Option("--run", help="What a search found: TREC, three columns, or a ColBERT ranking.")],
    data: Data,
    output: Annotated[Path, typer.Option("--output", help="The TREC run file to write.")],
    top_k: Annotated[int, typer.Option("--top_k", help="How many documents of each query get a new score.")] = 100,
    rest: Annotated[
        str, typer.Option("--rest", help="Documents below top_k: keep (below the others, in their order) or drop.")
    ] = "keep",
    mode: Annotated[
        str | None, typer.Option("--mode", help="Of a retriever without @MODE; its first if left out.")
    ] = None,
    tag: Annotated[str, typer.Option("--tag", help="The last column of the run file.")] = "jaxret",
    batch_size: Annotated[int, typer.Option("--batch_size", help="Queries in memory at a time.")] = 64,
    language: Language = "en",
    analyzer: AnalyzerName = None,
    mesh_shape: MeshShape = "-1,1,1",
    dry_run: DryRun = False,
) -> None:
    """Ranks the first documents of a run again, by a cross-encoder or by any retriever, late interaction included.

    A cross-encoder's scores are the numbers before its sigmoid.
    """
    from jaxret.data.beir import BeirFolder
    from jaxret.search import analyzers
    from jaxret.search.reranking import check_run, reranked
    from jaxret.search.run_files import read_run, write_run

    check_output(output)
    check_choice("--rest", rest, RESTS)
    for option, value in (("--top_k", top_k), ("--batch_size", batch_size)):
        if value < 1:
            raise InputError(option, f"{value} is less than 1", "Give 1 or more.")
    analyzers.analyzer(language, analyzer)
    folder, found = BeirFolder(data), read_run(run)
    check_run(found, folder)
    system = systems.System.named("--model", model, mode)
    if system.kind == "run":
        raise InputError("--model", f"{model} is a run file, which scores no texts", "Give a model.")
    if dry_run:
        print(f"would rerank the first {top_k} of {len(found)} queries of {run} with {system} into {output}")
        return
    from jaxret.cli.progress import progress

    corpus = folder.corpus if system.kind in ("bm25", "index") else None
    ranker = system.opened(corpus, language, mesh_shape, analyzer=analyzer)
    with progress(f"rerank into {output}", len(found)) as advance:
        again = reranked(found, folder, ranker.scores, top_k, rest, batch_size, advance)
    write_run(again, output, tag)
    _record(output, run, folder, ranker, {"top_k": top_k, "rest": rest, "tag": tag})
    print(f"{output}: {len(again)} queries")


def _record(output: Path, run: Path, folder, ranker: Ranker, settings: dict) -> None:
    from jaxret.files import existing, sha256, write_json
    from jaxret.runtime.manifest import manifest

    data = {"folder": str(folder.path), "fingerprint": folder.fingerprint}
    data |= {"run": str(run), "run_sha256": sha256(existing(run))}
    record = manifest(data=data, output_sha256=sha256(output), model=ranker.facts(), settings=settings)
    write_json(output.with_name(f"{output.name}.manifest.json"), record)
