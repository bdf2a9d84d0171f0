"""Teachers' scores for training groups, a batch of groups at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from jaxret.data.groups import Group
from jaxret.errors import InputError
from jaxret.search.pairs import Pair, Scorer, fused_scores

BATCH_GROUPS = 64


def scored_groups(
    groups: Iterable[Group],
    teachers: Sequence[Scorer],
    weights: Sequence[float | int] = (1.0,),
    normalization: str = "none",
    batch_size: int = BATCH_GROUPS,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Group]:
    """The groups with a score for every passage: the weighted sum of the teachers', see `fused_scores`.

    Args:
      groups: with or without scores, which are replaced.
      teachers: a scorer each.
      weights: one a teacher.
      normalization: of each teacher's scores among the passages of a group.
      batch_size: groups at a time.
      progress: hears how many more groups are done.

    Raises:
      InputError: a teacher has no score for a pair; another number of weights than of teachers.
    """
    waiting = iter(groups)
    while batch := list(islice(waiting, batch_size)):
        pairs = [pair for group in batch for pair in _pairs(group)]
        sizes = [len(group.positives) + len(group.negatives) for group in batch]
        columns = [_complete(teacher(pairs), pairs, number) for number, teacher in enumerate(teachers, 1)]
        scores = fused_scores(columns, np.repeat(np.arange(len(batch)), sizes), weights, normalization)
        values = iter([float(str(score)) for score in scores])  # the shortest decimals of a float32
        for group in batch:
            sides = [[replace(p, score=next(values)) for p in side] for side in (group.positives, group.negatives)]
            yield replace(group, positives=sides[0], negatives=sides[1])
        if progress:
            progress(len(batch))


def _pairs(group: Group) -> Iterator[Pair]:
    for passage in (*group.positives, *group.negatives):
        yield Pair(group.query_id, group.query, passage.id, passage.title, passage.text)


def _complete(scores: np.ndarray, pairs: Sequence[Pair], number: int) -> np.ndarray:
    missing = np.flatnonzero(~np.isfinite(scores))
    if len(missing):
        pair = pairs[missing[0]]
        problem = f"no score for query {pair.query_id!r} and document {pair.document_id!r}"
        raise InputError(f"teacher {number}", problem, "Rank deeper, or for a run give --missing lowest.")
    return scores
