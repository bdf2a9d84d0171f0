"""`jaxret mine`: hard negatives from what a system ranks high."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxret.cli import systems
from jaxret.cli.options import AnalyzerName, Data, DryRun, Language, MeshShape, check_choice
from jaxret.errors import InputError
from jaxret.files import scratch_folder

if TYPE_CHECKING:
    from jaxret.data.groups import Group

LAYOUTS = ("beir", "colbert", "flagembedding", "tevatron")


def mine(
    data: Data,
    source: Annotated[str, typer.Option("--from", help=f"Whose ranking: {systems.HELP}")],
    output: Annotated[Path, typer.Option("--output", help="The file; MY_DATA/negatives.tsv is what training reads.")],
    split: Annotated[str, typer.Option("--split", help="Whose queries: which qrels.")] = "train",
    mode: Annotated[
        str | None, typer.Option("--mode", help="Of models without @MODE; their first if left out.")
    ] = None,
    num_negatives: Annotated[int, typer.Option("--num_negatives", help="Negatives a query.")] = 4,
    ranks: Annotated[str, typer.Option("--ranks", help="The window, FIRST-LAST, from rank 1.")] = "1-100",
    margin: Annotated[
        float | None, typer.Option("--margin", help="A negative scores at most the positive minus this.")
    ] = None,
    relative_margin: Annotated[
        float | None, typer.Option("--relative_margin", help="The same as a share of the positive's score, e.g. 0.05.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", help="Drops negatives that it scores too high; like --from, or a cross-encoder."),
    ] = None,
    teacher_margin: Annotated[
        float, typer.Option("--teacher_margin", help="Its score of a negative is at most its positive's minus this.")
    ] = 0.0,
    sampling: Annotated[str, typer.Option("--sampling", help="top (the best ranked) or random.")] = "top",
    seed: Annotated[int, typer.Option("--seed", help="Of --sampling random.")] = 0,
    layout: Annotated[str, typer.Option("--layout", help=f"One of {', '.join(LAYOUTS)}.")] = "beir",
    batch_size: Annotated[int, typer.Option("--batch_size", help="Queries in memory at a time.")] = 1024,
    language: Language = "en",
    analyzer: AnalyzerName = None,
    mesh_shape: MeshShape = "-1,1,1",
    dry_run: DryRun = False,
) -> None:
    """Mines hard negatives; relevant documents, and copies of their texts, are never among them.

    Margins count from the query's lowest scored positive. A query keeps fewer negatives, or none, rather than doubtful
    ones: the table at the end says how many queries, and why. Only the layout beir keeps the scores.
    """
    from jaxret.data.beir import BeirFolder
    from jaxret.search import analyzers
    from jaxret.search.miner import Miner
    from jaxret.search.mining import MiningSettings

    check_choice("--layout", layout, LAYOUTS)
    check_output(output)
    if batch_size < 1:
        raise InputError("--batch_size", f"{batch_size} is no number of queries", "Give 1 or more.")
    first, last = _window(ranks)
    settings = MiningSettings(num_negatives, first, last, margin, relative_margin, teacher_margin, sampling, seed)
    analyzers.analyzer(language, analyzer)
    chosen = systems.System.named("--from", source, mode)
    if chosen.kind == "cross_encoder":
        raise InputError("--from", f"{source} is a cross-encoder, which ranks no corpus", "Give it as --teacher.")
    judge = systems.System.named("--teacher", teacher, mode) if teacher else None
    if dry_run:
        queries = len(BeirFolder(data).qrels(split))
        print(f"would mine negatives for {queries} queries of {data} ({split}) from {chosen}", end="")
        print(f", filtered by {judge}" if judge else "", f"into {output}")
        return
    with scratch_folder(output) as scratch:
        folder = BeirFolder(data, scratch=scratch / "corpus")
        folder.qrels(split)
        fingerprint = folder.fingerprint
        opened = partial(systems.System.opened, corpus=folder.corpus, language=language, mesh_shape=mesh_shape)
        ranker = opened(chosen, store=scratch / "ranker", analyzer=analyzer)
        opinion = None
        if judge:
            judged = scratch / "teacher" if judge.kind == "bm25" else None
            opinion = ranker if judge == chosen else opened(judge, store=judged, analyzer=analyzer)
        miner = Miner(folder, split, ranker, settings, opinion.scores if opinion else None, batch_size)
        facts = {"from": ranker.facts(), "teacher": opinion and opinion.facts(), "settings": settings.to_dict()}
        _write(output, layout, miner)
    counts = miner.tally.to_dict()
    _record(output, {"folder": str(data), "split": split, "fingerprint": fingerprint}, layout, counts, facts)
    print(_table(counts, settings.num_negatives))


def _window(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal()):
        raise InputError("--ranks", f"{text!r} is no window", "Write the first and the last rank, like 10-100.")
    return int(first), int(last)


def _write(output: Path, layout: str, miner: Any) -> None:
    """The file, row after row as the batches are done; its name only at the end."""
    from jaxret.cli.progress import progress

    with progress(f"mine into {output}", len(miner)) as advance:
        write_groups(output, layout, (group for group in miner(advance) if group.negatives))


def check_output(output: Path) -> None:
    """Raises InputError for a name that says it were compressed."""
    if output.suffix == ".gz":
        raise InputError("--output", f"{output} would not be compressed", "Leave out .gz; compress it afterwards.")


def write_groups(output: Path, layout: str, groups: Iterable[Group]) -> None:
    """Writes groups as they come; the file gets its name at the end."""
    from jaxret.data.group_files import GROUP_LAYOUTS, HEADERS
    from jaxret.files import atomic

    with atomic(output) as file:
        if layout in HEADERS:
            file.write(f"{HEADERS[layout]}\n")
        for group in groups:
            file.writelines(f"{line}\n" for line in GROUP_LAYOUTS[layout](group))


def _record(output: Path, data: dict, layout: str, counts: dict, facts: dict) -> None:
    from jaxret.files import sha256, write_json
    from jaxret.runtime.manifest import manifest

    record = manifest(data=data, layout=layout, output_sha256=sha256(output), counts=counts, **facts)
    write_json(output.with_name(f"{output.name}.manifest.json"), record)


def _table(counts: dict[str, dict[str, int]], num_negatives: int) -> str:
    """What became of the candidates and of the queries, as lines of text."""
    full, fewer, none = (counts["queries"][name] for name in ("full", "fewer", "none"))
    rows = [
        f"{full + fewer + none} queries: {full} with {num_negatives} negatives, {fewer} with fewer, {none} with none"
    ]
    rows += [f"  short because of {reason:<18} {count:>9} queries" for reason, count in counts["lost"].items()]
    rows.append(f"{sum(counts['candidates'].values())} candidates:")
    rows += [f"  {name:<18} {count:>9}" for name, count in counts["candidates"].items() if count]
    return "\n".join(rows)
