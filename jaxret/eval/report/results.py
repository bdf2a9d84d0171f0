"""A results folder as `jaxret evaluate` leaves it: metrics.json, metrics/<system>.tsv, runs/<system>.trec."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxret.errors import InputError
from jaxret.files import existing_folder, open_text, read_json
from jaxret.search.run_files import read_run

ORDER = ("bm25", "untrained_", "dense", "lexical", "multi_vector", "fusion")
LABELS = {"bm25": "BM25", "multi_vector": "multi-vector", "fusion": "BM25 + multi-vector"}
UNTRAINED = "untrained_"
_REMAKE = "Make it with jaxret evaluate."


@dataclass(frozen=True)
class System:
    """One entry of metrics.json.

    Attributes:
      name: its key, as in the file names.
      scores: {measure key: mean over the queries}.
      intervals: {measure key: (low, high)}, 95% bootstrap intervals.
      facts: the rest of the entry.
    """

    name: str
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    facts: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The name as a reader would write it."""
        if self.name.startswith(UNTRAINED):
            rest = self.name.removeprefix(UNTRAINED)
            return f"{LABELS.get(rest, rest)}, untrained"
        return LABELS.get(self.name, self.name)


@dataclass(frozen=True)
class PerQuery:
    """A system's values of one measure, and its ranked document ids, by query id."""

    system: System
    values: Mapping[str, float]
    ranking: Mapping[str, list[str]]


@dataclass(frozen=True)
class Results:
    """The systems of a results folder in reading order: baselines, the model's representations, fusion, others."""

    folder: Path
    systems: list[System]

    def __contains__(self, name: str) -> bool:
        return any(system.name == name for system in self.systems)

    def __getitem__(self, name: str) -> System:
        return next(system for system in self.systems if system.name == name)

    def best(self, key: str) -> System:
        """The system with the highest score, the first of equals."""
        return max(self.systems, key=lambda system: system.scores[key])

    def is_best(self, system: System, key: str) -> bool:
        """Whether no other system has a higher score."""
        return system.scores[key] == self.best(key).scores[key]

    def values(self, name: str, key: str, queries: Iterable[str]) -> dict[str, float]:
        """{query id: value} of a system.

        Raises:
          InputError: its table is missing or broken, or lacks the measure or one of the queries.
        """
        path = self.folder / "metrics" / f"{name}.tsv"
        with open_text(path) as file:
            table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            for column in ("query-id", key):
                if column not in (table.fieldnames or ()):
                    raise InputError(path, f"no column {column!r}", _REMAKE)
            values = {row["query-id"]: _number(f"{path}:{table.line_num}", key, row[key]) for row in table}
        missing = next((query for query in queries if query not in values), None)
        if missing is not None:
            raise InputError(
                path, f"no row for the judged query {missing!r}", "Evaluate on the same --data and --split."
            )
        return values

    def per_query(self, name: str, key: str, queries: Iterable[str]) -> PerQuery:
        """What a system did on each query; raises InputError as `values`, and for a missing or broken run."""
        values = self.values(name, key, queries)
        run = read_run(self.folder / "runs" / f"{name}.trec").to_dict()
        return PerQuery(self[name], values, {query: list(documents) for query, documents in run.items()})


def read_results(folder: str | Path, split: str, required: tuple[str, ...]) -> Results:
    """Reads metrics.json.

    Args:
      folder: the results folder.
      split: what its entries must be about.
      required: measure keys that every entry must have.

    Raises:
      InputError: metrics.json is missing or no list of entries, a system is there twice or of another split, or lacks
        a measure.
    """
    path = existing_folder(folder) / "metrics.json"
    if not path.exists():
        raise InputError(path, "no such file", _REMAKE)
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise InputError(path, "not a list of systems, or an empty one", _REMAKE)
    systems = [_system(path, entry, split, required) for entry in entries]
    names = [system.name for system in systems]
    for name in names:
        if names.count(name) > 1:
            raise InputError(path, f"system {name!r} is there twice", "Keep one of its entries.")
    return Results(Path(folder), sorted(systems, key=_place))


def _system(path: Path, entry: Any, split: str, required: tuple[str, ...]) -> System:
    try:
        facts = dict(entry)
        name = str(facts.pop("system"))
        scores = {key: float(value) for key, value in facts.pop("scores").items()}
        intervals = {key: (float(low), float(high)) for key, (low, high) in facts.pop("intervals", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, f"not an entry of a system ({error!r})", _REMAKE) from None
    if facts.get("split", split) != split:
        raise InputError(path, f"system {name!r} is of split {facts['split']!r}, not {split!r}", "Give that --split.")
    missing = [key for key in required if key not in scores]
    if missing:
        raise InputError(path, f"system {name!r} has no {', '.join(missing)}", "Evaluate with these --measures.")
    return System(name, scores, intervals, facts)


def _place(system: System) -> int:
    stem = UNTRAINED if system.name.startswith(UNTRAINED) else system.name
    return ORDER.index(stem) if stem in ORDER else len(ORDER)


def _number(place: str, key: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(place, f"{key} {text!r} is not a finite number", _REMAKE)
    return value
