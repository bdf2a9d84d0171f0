"""Two systems query by query: who wins, where, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from jaxret.eval.intervals import Difference, paired_difference
from jaxret.eval.report.results import PerQuery, System

BUCKETS = (("1", 1), ("2–3", 3), ("4–10", 10), ("after 10", 10**9))
NOT_FOUND = "not found"
_PAST_ALL = 10**9  # stands for the rank of what was not found


@dataclass(frozen=True)
class Outcome:
    """One query in two systems.

    Attributes:
      query_id: the query.
      gain: the system's value less the baseline's.
      ranks: of the best-ranked relevant document in system and baseline; None where the run has none.
      document: the relevant document that ranks best in either; where neither found one, the most relevant.
      first: the document that the system ranked first; None where it found nothing.
    """

    query_id: str
    gain: float
    ranks: tuple[int | None, int | None]
    document: str
    first: str | None


@dataclass(frozen=True)
class Duel:
    """All judged queries in a system and a baseline.

    Attributes:
      system, baseline: the two.
      outcomes: one a query; those that the system gains most on come first.
      paired: the difference of the means, with its interval.
    """

    system: System
    baseline: System
    outcomes: list[Outcome]
    paired: Difference

    @property
    def wins(self) -> list[Outcome]:
        """Queries that the system is better on, biggest gain first."""
        return [outcome for outcome in self.outcomes if outcome.gain > 0]

    @property
    def losses(self) -> list[Outcome]:
        """Queries that the baseline is better on, biggest loss first."""
        return [outcome for outcome in reversed(self.outcomes) if outcome.gain < 0]

    @property
    def ties(self) -> int:
        """How many queries have equal values."""
        return len(self.outcomes) - len(self.wins) - len(self.losses)

    def rank_table(self) -> list[tuple[str, list[int]]]:
        """How many queries have which ranks: a row for each bucket of the baseline, a count for each of the system."""
        names = [name for name, _ in BUCKETS] + [NOT_FOUND]
        counts = dict.fromkeys(names, 0)
        table = {name: counts.copy() for name in names}
        for outcome in self.outcomes:
            column, row = (_bucket(rank) for rank in outcome.ranks)
            table[row][column] += 1
        return [(name, list(row.values())) for name, row in table.items()]


def duel(system: PerQuery, baseline: PerQuery, qrels: Mapping[str, Mapping[str, int]]) -> Duel:
    """Compares two systems on the judged queries; equal gains go by the difference of ranks, then by query id."""
    outcomes = [_outcome(query, grades, system, baseline) for query, grades in qrels.items()]
    paired = gap(system.values, baseline.values, qrels)
    outcomes.sort(key=lambda o: (-o.gain, _depth(o.ranks[0]) - _depth(o.ranks[1]), o.query_id))
    return Duel(system.system, baseline.system, outcomes, paired)


def gap(values: Mapping[str, float], others: Mapping[str, float], queries: Iterable[str]) -> Difference:
    """The difference of two systems' values over the queries, by the paired bootstrap."""
    rows = np.array([(values[query], others[query]) for query in queries])
    return paired_difference(rows[:, 0], rows[:, 1])


def _outcome(query: str, grades: Mapping[str, int], system: PerQuery, baseline: PerQuery) -> Outcome:
    found = [_best_relevant(side.ranking.get(query, []), grades) for side in (system, baseline)]
    ranks = [rank for rank, _ in found]
    _, document = min(found, key=lambda pair: _depth(pair[0]))
    return Outcome(
        query_id=query,
        # Both were rounded when they were written: what is below their last digits is no win.
        gain=round(system.values[query] - baseline.values[query], 6),
        ranks=(ranks[0], ranks[1]),
        document=document,
        first=next(iter(system.ranking.get(query, [])), None),
    )


def _best_relevant(documents: list[str], grades: Mapping[str, int]) -> tuple[int | None, str]:
    """Rank and id of the best-ranked relevant document."""
    for rank, document in enumerate(documents, 1):
        if grades.get(document, 0) > 0:
            return rank, document
    return None, max(grades, key=lambda document: grades[document])


def _depth(rank: int | None) -> int:
    return _PAST_ALL if rank is None else rank


def _bucket(rank: int | None) -> str:
    return NOT_FOUND if rank is None else next(name for name, last in BUCKETS if rank <= last)
