"""The best k of a search that goes through a corpus part after part."""

from __future__ import annotations

import numpy as np

NOTHING = -1  # the position of an empty slot


class TopK:
    """The best documents so far; equal scores in ascending order of positions, empty slots last.

    Args:
      rows: the number of queries.
      k: results a query.

    Attributes:
      scores: float32 [rows k], 0 in empty slots.
      positions: int64 [rows k], NOTHING in empty slots.
    """

    def __init__(self, rows: int, k: int):
        self.scores = np.zeros((rows, k), np.float32)
        self.positions = np.full((rows, k), NOTHING, np.int64)

    def add(self, scores: np.ndarray, positions: np.ndarray) -> None:
        """Takes in the results of one more part: scores [rows n] and positions [rows n], in any order."""
        k = self.scores.shape[1]
        scores = np.hstack([self.scores, scores.astype(np.float32)])
        positions = np.hstack([self.positions, positions])
        order = np.lexsort((positions, -scores, positions == NOTHING), axis=-1)[:, :k]
        self.scores = np.take_along_axis(scores, order, 1)
        self.positions = np.take_along_axis(positions, order, 1)
