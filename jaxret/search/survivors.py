"""The best of a stream of scores, most of which are too low to be worth more than one comparison.

Scores come with the largest of groups of them, so that most are not even looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from jaxret.ops.topk import EMPTY

ROOM = 4  # times the documents that are kept: those that have reached the floor of their time
ROWS = 128  # that are partitioned at a time


class Scores(NamedTuple):
    """Of `g` groups of `m` documents.

    Attributes:
      every: `[b g m]`.
      largest: `[b g]`, of each group.
      positions: `[g m]`; EMPTY marks padding, which scores -inf.
    """

    every: Float32[np.ndarray, "b g m"]
    largest: Float32[np.ndarray, "b g"]
    positions: Int32[np.ndarray, "g m"]


class Survivors:
    """Documents of each query so far, the best `kept` of them among others.

    Args:
      queries: how many.
      kept: how many documents a query.
    """

    def __init__(self, queries: int, kept: int):
        self._floors, self._kept = np.full(queries, -np.inf, np.float32), kept  # what so many documents have reached
        self._scores = np.full((queries, ROOM * kept), -np.inf, np.float32)
        self._positions = np.full(self._scores.shape, EMPTY, np.int32)
        self._filled = np.zeros(queries, np.int64)

    def add(self, scores: Scores) -> None:
        """Takes in the scores of some documents."""
        if np.any(self._filled):
            if self._appended(scores):
                return
            self._compact()
            if self._appended(scores):
                return
        every = scores.every.reshape(len(self._floors), -1)
        # The largest of as many groups are of as many documents.
        self._raise_floors(scores.largest if scores.largest.shape[1] >= self._kept else every)
        self._compact()
        if not self._appended(scores):  # too many of them tie
            self._sort(every, scores.positions.reshape(-1))

    def best(self) -> tuple[Float32[np.ndarray, " b"], Int32[np.ndarray, "b n"]]:
        """A floor that no other document is above, and the positions of those that reach it, ascending, then EMPTY."""
        self._compact()
        width = max(self._kept, int(self._filled.max()))
        return self._floors, np.sort(self._positions[:, :width], axis=1)

    def _appended(self, scores: Scores) -> bool:
        """Puts those in that reach the floors, where there is room for all of them."""
        groups = np.flatnonzero(scores.largest >= self._floors[:, None])
        if len(groups) > self._scores.size:
            return False
        _, count, size = scores.every.shape
        rows, columns = np.divmod(groups, count)
        members = np.take(scores.every.reshape(-1, size), groups, axis=0)
        chosen = np.flatnonzero((members >= self._floors[rows, None]) & (members > -np.inf))
        group, member = np.divmod(chosen, size)
        return self._put(rows[group], members.reshape(-1)[chosen], scores.positions[columns[group], member])

    def _put(self, rows: np.ndarray, scores: np.ndarray, positions: np.ndarray) -> bool:
        """Puts documents in, of ascending rows, where there is room for all of them."""
        counts = np.bincount(rows, minlength=len(self._floors))
        if np.max(self._filled + counts) > self._scores.shape[1]:
            return False
        slots = np.arange(len(rows)) + np.repeat(self._filled - (np.cumsum(counts) - counts), counts)
        self._scores[rows, slots] = scores
        self._positions[rows, slots] = positions
        self._filled += counts
        return True

    def _raise_floors(self, scores: np.ndarray) -> None:
        """Raises the floors to what `kept` documents have reached, of what is there and of what is given."""
        width = int(self._filled.max())
        for start in range(0, len(scores), ROWS):
            rows = slice(start, start + ROWS)
            every = np.concatenate([self._scores[rows, :width], scores[rows]], axis=1)
            if every.shape[1] >= self._kept:
                np.maximum(self._floors[rows], _reached(every, self._kept), out=self._floors[rows])

    def _compact(self) -> None:
        """Drops what does not reach the floors any more; at most half of the room is filled then."""
        self._raise_floors(self._scores[:, :0])
        scores, positions = self._scores, self._positions
        stays = (scores >= self._floors[:, None]) & (positions != EMPTY)
        if np.count_nonzero(stays, axis=1).max() > ROOM // 2 * self._kept:
            self._sort(scores[:, :0], positions[0, :0])
            return
        self._scores, self._positions = np.full_like(scores, -np.inf), np.full_like(positions, EMPTY)
        self._filled[:] = 0
        self._put(np.nonzero(stays)[0], scores[stays], positions[stays])

    def _sort(self, scores: Float32[np.ndarray, "b c"], positions: Int32[np.ndarray, " c"]) -> None:
        """Keeps any `kept` of the best, of what is there and of what is given, however many tie."""
        for start in range(0, len(scores), ROWS):
            rows = slice(start, start + ROWS)
            mine = np.concatenate([self._scores[rows], scores[rows]], axis=1)
            places = np.broadcast_to(positions, scores.shape)[rows]
            places = np.concatenate([self._positions[rows], places], axis=1)
            chosen = np.argpartition(mine, -self._kept, axis=1)[:, -self._kept :]
            self._scores[rows, : self._kept] = np.take_along_axis(mine, chosen, axis=1)
            self._positions[rows, : self._kept] = np.take_along_axis(places, chosen, axis=1)
        self._scores[:, self._kept :], self._positions[:, self._kept :] = -np.inf, EMPTY
        self._filled[:] = self._kept
        np.maximum(self._floors, self._scores[:, : self._kept].min(axis=1), out=self._floors)


def _reached(scores: Float32[np.ndarray, "b c"], kept: int) -> Float32[np.ndarray, " b"]:
    """The kept-th largest of each row."""
    return np.partition(scores, -kept, axis=1)[:, -kept]
