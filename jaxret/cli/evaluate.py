"""`jaxret evaluate`: runs and metrics of BM25, a model's representations, and their fusion."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxret.cli.options import (
    AnalyzerName,
    Data,
    Distributed,
    DryRun,
    Language,
    MemoryBudget,
    MeshShape,
    Step,
    parsed_weights,
)
from jaxret.errors import InputError
from jaxret.files import scratch_folder, sha256

if TYPE_CHECKING:
    from jaxret.search.hybrid import HybridSettings
    from jaxret.search.runs import Run
    from jaxret.search.store import StoredVectors
    from jaxret.search.vectors import Vectors

MEASURES = "ndcg@10,mrr@10,R@1,R@3,R@5,R@10,R@100,map@100"
Systems = Annotated[
    str | None,
    typer.Option(
        "--systems",
        help="Of bm25,dense,lexical,multi_vector,fusion,dense_lexical,reranked,hybrid; else the model's, or bm25.",
    ),
]
Weight = Annotated[
    str, typer.Option("--fusion_weight", help="Share of MaxSim, 0 to 1; or a fusion.json; or choose, on a dev split.")
]


def evaluate(
    data: Data,
    output: Annotated[Path, typer.Option("--output", help="Gets metrics.json, metrics/ and runs/.")],
    split: Annotated[str, typer.Option("--split", help="Which qrels.")] = "test",
    systems: Systems = None,
    model: Annotated[Path | None, typer.Option("--model", help="The workdir of a training run.")] = None,
    step: Step = None,
    vectors: Annotated[str | None, typer.Option("--vectors", help="What jaxret encode made; else encoded now.")] = None,
    run: Annotated[
        list[Path] | None, typer.Option("--run", help="A run file, of a system called as the file is; may be repeated.")
    ] = None,
    language: Language = "en",
    analyzer: AnalyzerName = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Goes before the systems' names, e.g. untrained_.")] = "",
    fusion_weight: Weight = "0.5",
    hybrid_weights: Annotated[
        str,
        typer.Option("--hybrid_weights", help="Of hybrid's dense, lexical and MaxSim scores."),
    ] = "0.4,0.2,0.4",
    hybrid_depth: Annotated[
        str,
        typer.Option("--hybrid_depth", help="Candidates of dense and of lexical, and how many are reranked."),
    ] = "1000,200",
    measures: Annotated[str, typer.Option("--measures", help="Comma-separated, e.g. ndcg@10,R@100.")] = MEASURES,
    k: Annotated[int, typer.Option("--k", help="Results a query.")] = 100,
    memory_budget_gb: MemoryBudget = None,
    mesh_shape: MeshShape = "-1,1,1",
    distributed: Distributed = False,
    dry_run: DryRun = False,
) -> None:
    """Searches all judged queries of a split, or reads runs of them; writes runs, metrics and a manifest.

    Of several processes (--distributed) each searches its share of the shards of --vectors; the first writes.
    """
    from jaxret.data.beir import BeirFolder
    from jaxret.eval.measures import parse_measure
    from jaxret.eval.systems import MODES, checked_systems, judged
    from jaxret.runtime.processes import one_job

    heads = _heads(model)
    given = _given(run or [])
    searched = systems.split(",") if systems else [mode for mode in MODES if mode in heads] or ["bm25"]
    names = checked_systems(searched) if systems or model or not given else []
    wanted = [parse_measure(name) for name in measures.split(",")]
    with scratch_folder(output) if memory_budget_gb is not None and not dry_run else nullcontext() as scratch:
        folder = BeirFolder(data, scratch=scratch and scratch / "corpus").validated(split)
        _check_k(names, k, len(folder.corpus))
        modes = [mode for mode in MODES if mode in names or (mode == "multi_vector" and "fusion" in names)]
        hybrid = _hybrid(names, hybrid_weights, hybrid_depth)
        _check_heads(model, heads, MODES if hybrid else modes)
        _check_distributed(distributed, vectors is not None and bool(modes or hybrid))
        weight = _weight(fusion_weight) if "fusion" in names else None
        asked = judged(folder, split)
        if dry_run:
            every = ", ".join([*names, *given])
            print(f"would evaluate {every} on {len(asked[0])} queries of {data} ({split}) into {output}")
            return
        runs: dict[str, Run] = {}
        facts: dict[str, Any] = {}
        system, room = (model, step, mesh_shape), (scratch, memory_budget_gb)
        with one_job(distributed) as share:
            if modes or hybrid:
                runs, facts = _searched(system, folder.corpus, vectors, asked, modes, k, hybrid, room, share)
            if share[0] == 0:
                if "bm25" in names or "fusion" in names:
                    runs["bm25"], facts["bm25"] = _bm25(folder.corpus, language, asked, k, analyzer, scratch)
                if "fusion" in names:
                    runs["fusion"], facts["fusion"] = _fused(runs, weight, folder.qrels(split), output)
                facts |= {"runs": _files(given)} if given else {}
                runs = {name: runs[name] for name in names} | {name: one for name, (_, one) in given.items()}
                _write(output, {prefix + name: one for name, one in runs.items()}, folder, split, wanted, facts)


def _check_k(names: list[str], k: int, documents: int) -> None:
    if names and not 1 <= k <= documents:
        raise InputError("--k", f"{k} results of {documents} documents", f"Give 1 to {documents}.")


def _check_distributed(distributed: bool, shared: bool) -> None:
    if distributed and not shared:
        fix = "Encode the corpus with jaxret encode --distributed, or leave the option out."
        raise InputError("--distributed", "shares the search in encoded --vectors, and there is none", fix)


def _given(paths: list[Path]) -> dict[str, tuple[Path, Run]]:
    """Run files by what their systems are called."""
    from jaxret.eval.systems import SYSTEMS
    from jaxret.search.run_files import read_run

    found: dict[str, tuple[Path, Run]] = {}
    for path in paths:
        name = path.name.removesuffix(".gz")
        name = name.rpartition(".")[0] or name
        if name in found or name in SYSTEMS:
            other = found[name][0] if name in found else f"the system {name}"
            raise InputError("--run", f"{path} would be called {name}, as {other} is", "Rename the file.")
        found[name] = path, read_run(path)
        if not len(found[name][1]):
            raise InputError(path, "holds no result", "Give a run file with lines.")
    return found


def _files(given: dict[str, tuple[Path, Run]]) -> dict[str, dict[str, str]]:
    """What a manifest says of run files."""
    return {name: {"file": str(path), "sha256": sha256(path)} for name, (path, _) in given.items()}


def _bm25(corpus, language, asked, k, analyzer, scratch) -> tuple[Run, dict[str, Any]]:
    from jaxret.eval.systems import bm25_run

    ids, texts = asked
    run, settings = bm25_run(corpus, language, ids, texts, k, analyzer, scratch and scratch / "bm25")
    return run, asdict(settings)


def _heads(model: Path | None) -> tuple[str, ...]:
    from jaxret.runtime.layouts import describe

    return () if model is None else describe(str(model)).model.config.heads


def _check_heads(model: Path | None, heads: Sequence[str], modes: Sequence[str]) -> None:
    """InputError where the model lacks what a mode searches."""
    for mode in modes:
        if model is None:
            raise InputError("--model", f"{mode} needs a model", "Give the workdir of a training run.")
        if mode not in heads:
            raise InputError("--systems", f"{model} has no {mode}", f"Choose from {', '.join(heads)}.")


def _hybrid(names: list[str], weights: str, depth: str) -> HybridSettings | None:
    """BGE-M3's protocol with its weights and depths; None where no system of it is wanted."""
    from jaxret.search.hybrid import HYBRIDS, HybridSettings

    numbers = depth.split(",")
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        raise InputError("--hybrid_depth", f"{depth!r} is not two numbers", "Write it like 1000,200.")
    settings = HybridSettings(tuple(parsed_weights(weights, "--hybrid_weights")), int(numbers[0]), int(numbers[1]))
    return settings if set(names) & set(HYBRIDS) else None


def _searched(system, corpus, store, asked, modes, k, hybrid, room, share) -> tuple[dict[str, Run], dict[str, Any]]:
    from jaxret.cli.encode import encode_into, text_encoder
    from jaxret.cli.progress import progress
    from jaxret.eval.systems import model_runs
    from jaxret.runtime.manifest import machine
    from jaxret.search.corpus import affordable_documents, encoded_now, open_store, store_ids

    (encoder, step), (scratch, memory_budget_gb) = text_encoder(*system), room
    found: Vectors | StoredVectors
    if store is None and scratch is None:
        with progress("encode", len(corpus)) as advance:
            _, found = encoded_now(encoder, corpus, advance)
    else:
        if store is None:
            store = scratch / "vectors"
            encode_into(encoder, corpus, store, shard_documents=affordable_documents(encoder, memory_budget_gb))
        found = open_store(store, encoder, corpus)
    shown = None if share[0] else lambda mode: progress(mode, len(corpus))
    ids, texts = asked
    runs = model_runs(encoder, (store_ids(corpus), found), ids, texts, modes, k, shown, hybrid, memory_budget_gb, share)
    facts = {"model": str(system[0]), "step": step, "text": encoder.model.text.to_dict(), **machine(encoder.mesh)}
    return runs, facts | ({"hybrid": asdict(hybrid)} if hybrid else {})


def _fused(runs: dict[str, Run], weight: float | None, qrels: Any, output: Path) -> tuple[Run, dict[str, Any]]:
    """The fusion of BM25 and MaxSim; a chosen weight is written to fusion.json."""
    from jaxret.eval.fusion_weight import best_weight
    from jaxret.files import write_json
    from jaxret.search.fusion import weighted

    pair = [runs["bm25"], runs["multi_vector"]]
    facts: dict[str, Any] = {"systems": ["bm25", "multi_vector"], "normalization": "min_max"}
    if weight is None:
        weight = best_weight(runs["bm25"], runs["multi_vector"], qrels)
        write_json(output / "fusion.json", facts | {"weight": weight})
    return weighted(pair, [1 - weight, weight]), facts | {"weight": weight}


def _weight(text: str) -> float | None:
    """A share, from the command line or a file; None stands for "choose"."""
    from jaxret.files import read_json

    if text == "choose":
        return None
    if text.endswith(".json"):
        return float(read_json(text)["weight"])
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight <= 1:
        raise InputError("--fusion_weight", f"{text!r} is no share", "Give 0 to 1, a fusion.json, or choose.")
    return weight


def _write(output: Path, runs: dict[str, Run], folder: Any, split: str, measures: list, facts: dict[str, Any]) -> None:
    """Runs, per-query metrics, means with intervals, and the manifest."""
    from jaxret.eval.results import write_results
    from jaxret.files import write_json
    from jaxret.runtime.manifest import manifest

    for name, run in runs.items():
        entry = write_results(output, name, run, folder.qrels(split), measures, folder.path.name, split)
        numbers = "  ".join(f"{key} {value:.4f}" for key, value in entry["scores"].items())
        print(f"{name}: {numbers}")
    data = {"folder": str(folder.path), "split": split, "fingerprint": folder.fingerprint}
    for name in runs:
        write_json(output / "manifests" / f"{name}.json", manifest(system=name, data=data, **facts))
