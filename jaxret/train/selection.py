"""The best checkpoint of a run, by a metric of its evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxret.errors import InputError
from jaxret.files import write_json

FILE = "best.json"


@runtime_checkable
class Evaluation(Protocol):
    """What a run asks of its evaluation."""

    def check(self, model: Any) -> Sequence[str] | None:
        """Raises InputError where the model cannot be evaluated; may give the metrics' names."""

    def __call__(self, model: Any, params: Any) -> Mapping[str, float]:
        """Metrics by name; the greater, the better. All processes call it, and get the same."""


@dataclass(frozen=True)
class Best:
    """A checkpoint and its metric."""

    step: int
    metric: str
    value: float

    def write(self, workdir: Path) -> None:
        """Names it in `best.json`."""
        write_json(workdir / FILE, asdict(self))


def better(best: Best | None, step: int, metric: str, metrics: Mapping[str, float]) -> Best | None:
    """The checkpoint of a step where it is better than the best one; of equal ones the earlier is better.

    Raises:
      InputError: no such metric.
    """
    if not metric:
        return None
    check_metric(metric, list(metrics))
    value = float(metrics[metric])
    old = best.value if best is not None and best.metric == metric else -math.inf
    return Best(step, metric, value) if value > old else None


def check_metric(metric: str, names: Sequence[str] | None) -> None:
    """InputError where the evaluation has no metric of this name; nothing where its names are not known."""
    if names is not None and metric not in names:
        raise InputError("train.best_metric", f"unknown {metric!r}", f"Choose one of {', '.join(names)}.")
