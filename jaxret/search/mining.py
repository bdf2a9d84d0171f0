"""Which of a query's ranked documents become its hard negatives, and what became of the others."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int8

from jaxret.errors import InputError

SAMPLINGS = ("top", "random")


class Verdict(IntEnum):
    """What became of a candidate. The first reason that holds counts, in this order."""

    OPEN = 0
    BEFORE_WINDOW = 1  # better ranked than `first_rank`
    POSITIVE = 2  # relevant to the query, in whichever split
    COPY = 3  # has the text of a relevant document
    POSITIVE_UNSCORED = 4  # a margin to the positive is asked for, and the system has no score for the positive
    MARGIN = 5
    RELATIVE_MARGIN = 6
    TEACHER_UNSCORED = 7  # the teacher has no score for the candidate, or none for the positive
    TEACHER = 8
    SPARE = 9  # would do, but others were taken
    CHOSEN = 10


@dataclass(frozen=True)
class MiningSettings:
    """How hard negatives are chosen.

    A threshold is counted from the lowest score that the same system gives to a positive of the query.

    Attributes:
      num_negatives: wanted for each query.
      first_rank, last_rank: the window, from rank 1 of the list as it was retrieved, positives included.
      margin: a negative scores at most positive - margin; None for no such limit.
      relative_margin: a negative scores at most positive - relative_margin * |positive|; None for no such limit.
      teacher_margin: with a teacher, its score of a negative is at most its score of the positive - teacher_margin.
      sampling: "top" takes the best ranked, "random" any, by the seed and the ids alone.
      seed: of "random".
    """

    num_negatives: int = 4
    first_rank: int = 1
    last_rank: int = 100
    margin: float | None = None
    relative_margin: float | None = None
    teacher_margin: float = 0.0
    sampling: str = "top"
    seed: int = 0

    def __post_init__(self):
        if self.num_negatives < 1:
            raise InputError("num_negatives", f"{self.num_negatives} is no number of negatives", "Give 1 or more.")
        if not 1 <= self.first_rank <= self.last_rank:
            problem = f"{self.first_rank}-{self.last_rank} is no window"
            raise InputError("ranks", problem, "Write the first and the last rank, from 1, like 10-100.")
        if self.sampling not in SAMPLINGS:
            raise InputError("sampling", f"unknown {self.sampling!r}", f"Choose one of {', '.join(SAMPLINGS)}.")
        for name in ("margin", "relative_margin", "teacher_margin"):
            if getattr(self, name) is not None and not np.isfinite(getattr(self, name)):
                raise InputError(name, f"{getattr(self, name)} is not finite", "Give a number like 0.05.")

    @property
    def needs_positive_scores(self) -> bool:
        """Whether a threshold depends on the system's own score of the positive."""
        return self.margin is not None or self.relative_margin is not None

    def to_dict(self) -> dict[str, Any]:
        """Its settings as a plain dict."""
        return asdict(self)


def verdicts(
    scores: Float32[np.ndarray, " m"],
    relevant: Bool[np.ndarray, " m"],
    copies: Bool[np.ndarray, " m"],
    positive_score: float,
    settings: MiningSettings,
) -> Int8[np.ndarray, " m"]:
    """`Verdict` of each candidate of one query; OPEN for those that may be negatives.

    Args:
      scores: of the candidates, best first; the first has rank 1.
      relevant: which are relevant to the query.
      copies: which have the text of a relevant document.
      positive_score: the lowest score of a positive; NaN where the system has none.
      settings: the window and the margins.
    """
    ranks = np.arange(1, len(scores) + 1)
    found = np.full(len(scores), Verdict.OPEN, np.int8)
    found[ranks < settings.first_rank] = Verdict.BEFORE_WINDOW
    _reject(found, relevant, Verdict.POSITIVE)
    _reject(found, copies, Verdict.COPY)
    if settings.needs_positive_scores:
        _reject(found, np.full(len(scores), np.isnan(positive_score)), Verdict.POSITIVE_UNSCORED)
    exact = scores.astype(np.float64)
    if settings.margin is not None:
        _reject(found, exact > positive_score - settings.margin, Verdict.MARGIN)
    if settings.relative_margin is not None:
        limit = positive_score - settings.relative_margin * abs(positive_score)
        _reject(found, exact > limit, Verdict.RELATIVE_MARGIN)
    return found


def taught(
    found: Int8[np.ndarray, " m"], scores: Float32[np.ndarray, " m"], positive_score: float, settings: MiningSettings
) -> Int8[np.ndarray, " m"]:
    """The verdicts after a teacher's filter.

    Args:
      found: the verdicts before it; only OPEN ones change.
      scores: the teacher's, of the candidates; NaN where it has none.
      positive_score: the teacher's lowest of a positive; NaN where it has none.
      settings: the margin.
    """
    found = found.copy()
    _reject(found, np.isnan(scores) | np.isnan(positive_score), Verdict.TEACHER_UNSCORED)
    _reject(found, scores.astype(np.float64) > positive_score - settings.teacher_margin, Verdict.TEACHER)
    return found


def drawn(
    found: Int8[np.ndarray, " m"], query: str, documents: Sequence[str], settings: MiningSettings
) -> Int8[np.ndarray, " m"]:
    """The verdicts with `num_negatives` of the OPEN candidates CHOSEN and the others SPARE.

    A random choice depends on the seed, the query's id and the ids of the candidates, on nothing else.
    """
    found = found.copy()
    candidates = np.flatnonzero(found == Verdict.OPEN).tolist()
    found[candidates] = Verdict.SPARE
    if settings.sampling == "random":
        candidates.sort(key=lambda place: _lot(settings.seed, query, documents[place]))
    found[candidates[: settings.num_negatives]] = Verdict.CHOSEN
    return found


@dataclass
class Tally:
    """How many candidates met which fate, and how many queries have all, fewer or none of their negatives.

    Attributes:
      num_negatives: wanted for each query.
      candidates: {verdict: candidates}, names in small letters.
      queries: {"full" | "fewer" | "none": queries}.
      lost: for the queries with fewer or none, {what took most of their candidates: queries}; "no_results" where there
        were none, "too_few_results" where every candidate was taken.
    """

    num_negatives: int
    candidates: Counter[str] = field(default_factory=Counter)
    queries: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def add(self, found: Int8[np.ndarray, " m"]) -> None:
        """Counts one query's final verdicts."""
        fates = Counter(Verdict(code).name.lower() for code in found.tolist())
        chosen = fates["chosen"]
        self.candidates += fates
        self.queries["full" if chosen == self.num_negatives else "fewer" if chosen else "none"] += 1
        if chosen < self.num_negatives:
            del fates["chosen"]
            empty = "too_few_results" if chosen else "no_results"
            self.lost[max(sorted(fates), key=fates.__getitem__) if fates else empty] += 1

    def to_dict(self) -> dict[str, dict[str, int]]:
        """The counts as plain dicts, every verdict and group named."""
        names = [verdict.name.lower() for verdict in Verdict if verdict is not Verdict.OPEN]
        return {
            "candidates": {name: self.candidates[name] for name in names},
            "queries": {name: self.queries[name] for name in ("full", "fewer", "none")},
            "lost": dict(self.lost.most_common()),
        }


def _reject(found: np.ndarray, where: np.ndarray, verdict: Verdict) -> None:
    found[(found == Verdict.OPEN) & where] = verdict


def _lot(seed: int, query: str, document: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{query}\0{document}".encode(), digest_size=8).digest()
