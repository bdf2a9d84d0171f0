"""`jaxret score`: teachers' scores for training groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxret.cli import systems
from jaxret.cli.mine import check_output, write_groups
from jaxret.cli.options import NORMALIZATIONS, AnalyzerName, DryRun, Language, MeshShape, check_choice, parsed_weights
from jaxret.errors import InputError

if TYPE_CHECKING:
    from jaxret.data.beir import BeirFolder
    from jaxret.data.groups import Group

LAYOUTS = ("colbert", "flagembedding")


def score(
    teacher: Annotated[list[str], typer.Option("--teacher", help=f"Once or more: {systems.TEACHERS}")],
    output: Annotated[Path, typer.Option("--output", help="The file of JSON lines.")],
    groups: Annotated[
        Path | None, typer.Option("--input", help="A ColBERT or FlagEmbedding file; else the data's negatives.tsv.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The BEIR folder whose ids the file names.")] = None,
    split: Annotated[str, typer.Option("--split", help="Whose queries, without --input.")] = "train",
    mode: Annotated[
        str | None, typer.Option("--mode", help="Of models without @MODE; their first if left out.")
    ] = None,
    weights: Annotated[str, typer.Option("--weights", help="One for each teacher, e.g. 0.7,0.3; else all alike.")] = "",
    normalize: Annotated[
        str | None,
        typer.Option(
            "--normalize",
            help=f"{', '.join(NORMALIZATIONS)}, within each list; min_max if left out, none for one teacher.",
        ),
    ] = None,
    missing: Annotated[
        str, typer.Option("--missing", help="For what a run lacks: raise, or the query's lowest score in it.")
    ] = "raise",
    layout: Annotated[
        str | None, typer.Option("--layout", help=f"{' or '.join(LAYOUTS)}; the input's if left out.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Lists in memory at a time.")] = 64,
    language: Language = "en",
    analyzer: AnalyzerName = None,
    mesh_shape: MeshShape = "-1,1,1",
    dry_run: DryRun = False,
) -> None:
    """Scores each query's passages with a teacher, or with a weighted sum of several, for distillation."""
    from jaxret.data.beir import BeirFolder
    from jaxret.search import analyzers

    check_output(output)
    _check(normalize, missing, layout, batch_size)
    analyzers.analyzer(language, analyzer)
    shares = _shares(weights, len(teacher))
    folder = None if data is None else BeirFolder(data)
    source = _source(groups, folder, split)
    total, identified = _counted(source)
    layout = layout or ("colbert" if identified else "flagembedding")
    if layout == "colbert" and not identified:
        raise InputError("--layout", "the input has no ids for colbert", "Choose flagembedding.")
    chosen = [systems.System.named("--teacher", name, mode) for name in teacher]
    for system in chosen:
        if system.kind in ("bm25", "run") and not identified:
            raise InputError("--teacher", f"{system} needs ids, and the input has none", "Give a model as teacher.")
    rule = normalize or ("none" if len(chosen) == 1 else "min_max")
    if dry_run:
        named = " + ".join(f"{share:g} x {system}" for share, system in zip(shares, chosen, strict=True))
        print(f"would score {total} lists with {named} ({rule}) into {output}, layout {layout}")
        return
    corpus = folder.corpus if folder and any(system.kind in ("bm25", "index") for system in chosen) else None
    absent = "lowest" if missing == "lowest" else "none"
    rankers = [system.opened(corpus, language, mesh_shape, missing=absent, analyzer=analyzer) for system in chosen]
    _write(output, layout, source, total, rankers, shares, rule, batch_size)
    _record(output, groups, folder, split, layout, [ranker.facts() for ranker in rankers], shares, rule)
    print(f"{output}: {total} lists")


def _check(normalize: str | None, missing: str, layout: str | None, batch_size: int) -> None:
    choices = {
        "--normalize": (normalize, NORMALIZATIONS),
        "--missing": (missing, ("raise", "lowest")),
        "--layout": (layout, LAYOUTS),
    }
    for option, (value, allowed) in choices.items():
        if value is not None:
            check_choice(option, value, allowed)
    if batch_size < 1:
        raise InputError("--batch_size", f"{batch_size} is no number of lists", "Give 1 or more.")


def _shares(text: str, count: int) -> list[float]:
    shares = parsed_weights(text) or [1.0 / count] * count
    if len(shares) != count:
        raise InputError("--weights", f"{len(shares)} for {count} teachers", "Give one for each.")
    return shares


def _source(path: Path | None, folder: BeirFolder | None, split: str) -> Callable[[], Iterator[Group]]:
    """What yields the groups, from the start each time it is called."""
    from jaxret.data.groups import beir_groups, read_groups

    if path is not None:
        return lambda: read_groups(path, folder)
    if folder is None:
        raise InputError("--input", "nothing to score", "Give --input FILE, or --data with a negatives.tsv.")
    return lambda: beir_groups(folder, split)


def _counted(source: Callable[[], Iterator[Group]]) -> tuple[int, bool]:
    """The number of groups, after all were read and checked, and whether they have ids."""
    total, unnamed = 0, 0
    for group in source():
        total, unnamed = total + 1, unnamed + (not group.query_id)
    return total, not unnamed


def _write(output, layout, source, total, rankers, shares, rule, batch_size) -> None:
    """The file, row after row as the batches are done; its name only at the end."""
    from jaxret.cli.progress import progress
    from jaxret.search.group_scores import scored_groups

    teachers = [ranker.scores for ranker in rankers]
    with progress(f"score into {output}", total) as advance:
        write_groups(output, layout, scored_groups(source(), teachers, shares, rule, batch_size, advance))


def _record(output, groups, folder, split, layout, teachers, shares, rule) -> None:
    from jaxret.files import existing, sha256, write_json
    from jaxret.runtime.manifest import manifest

    inputs: dict[str, Any] = {}
    if groups is not None:
        inputs |= {"input": str(groups), "input_sha256": sha256(existing(groups))}
    if folder is not None:
        inputs |= {"folder": str(folder.path), "split": split, "fingerprint": folder.fingerprint}
    facts = {"teachers": teachers, "weights": shares, "normalization": rule, "layout": layout}
    record = manifest(data=inputs, output_sha256=sha256(output), **facts)
    write_json(output.with_name(f"{output.name}.manifest.json"), record)
