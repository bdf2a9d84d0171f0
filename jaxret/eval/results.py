"""What an evaluation leaves: runs/, metrics/ by system, and metrics.json with one entry a system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.errors import InputError
from jaxret.eval.intervals import RULE, mean_intervals
from jaxret.eval.judgements import Judgements, Qrels
from jaxret.eval.measures import Measure
from jaxret.eval.metrics import rules, scores_per_query
from jaxret.files import atomic, read_json, write_json
from jaxret.search.run_files import write_run
from jaxret.search.runs import Run

METRICS = "metrics.json"
MAIN = "ndcg_at_10"


def write_results(
    folder: str | Path, system: str, run: Run, qrels: Qrels, measures: Sequence[Measure], task: str, split: str
) -> dict[str, Any]:
    """Writes one system's run, its metrics by query (.tsv) and as an MTEB-like result (.json), and its entry.

    An entry of the same system in metrics.json is replaced where it stands, the others are kept.

    Returns:
      The entry: {"system", "task_name", "split", "scores", "intervals", "num_queries", "rules"}.

    Raises:
      InputError: no judged query, an id that a TREC run cannot hold, or a metrics.json that is not ours.
    """
    folder = Path(folder)
    entries = _entries(folder / METRICS)
    judgements = Judgements.of(qrels, run.documents)
    if not judgements.query_ids:
        raise InputError("qrels", f"split {split!r} judges no query", "Choose another split, or add judgements.")
    values = scores_per_query(run, judgements, measures)
    scores = {key: float(column.mean()) for key, column in values.items()}
    entry = {
        "system": system,
        "task_name": task,
        "split": split,
        "scores": scores,
        "intervals": {key: list(ends) for key, ends in mean_intervals(values).items()},
        "num_queries": len(judgements.query_ids),
        "rules": rules() | {"intervals": RULE},
    }
    write_run(run, folder / "runs" / f"{system}.trec", tag=system)
    _write_rows(folder / "metrics" / f"{system}.tsv", judgements.query_ids, values)
    write_json(folder / "metrics" / f"{system}.json", mteb_result(entry))
    write_json(folder / METRICS, list(({old["system"]: old for old in entries} | {system: entry}).values()))
    return entry


def mteb_result(entry: dict[str, Any], languages: Sequence[str] = ()) -> dict[str, Any]:
    """An entry in the shape of an MTEB TaskResult; the main score is nDCG@10 where it was measured.

    Args:
      entry: as `write_results` returns it.
      languages: codes such as `jpn-Jpan`.
    """
    scores = entry["scores"]
    main = scores.get(MAIN, next(iter(scores.values())))
    row = scores | {"main_score": main, "hf_subset": "default", "languages": list(languages)}
    return {
        "dataset_revision": "no_revision_available",
        "task_name": entry["task_name"],
        "mteb_version": None,
        "scores": {entry["split"]: [row]},
        "evaluation_time": None,
        "kg_co2_emissions": None,
        "rules": entry["rules"],
    }


def _entries(path: Path) -> list[dict[str, Any]]:
    entries = read_json(path) if path.exists() else []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "system" in entry for entry in entries):
        raise InputError(path, "not a list of systems", "Move it away, or give another --output.")
    return entries


def _write_rows(path: Path, query_ids: Sequence[str], values: dict[str, np.ndarray]) -> None:
    with atomic(path) as file:
        file.write("\t".join(["query-id", *values]) + "\n")
        for query, row in zip(query_ids, np.stack(list(values.values()), axis=1).tolist(), strict=True):
            file.write("\t".join([query, *(f"{value:.6f}" for value in row)]) + "\n")
