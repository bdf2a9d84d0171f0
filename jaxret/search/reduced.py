"""What searches with a scan in bfloat16 have in common; see `reduced_dense` and `reduced_maxsim`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from jax.sharding import Mesh

from jaxret.runtime.precision import multiplies_bfloat16
from jaxret.search import query_batches as batching
from jaxret.search.blocks import Group
from jaxret.search.on_devices import DeviceSearch
from jaxret.search.store import StoredVectors
from jaxret.search.vectors import Vectors

WORTH = 8  # times the documents that are kept: a corpus that it is worth for


class ReducedSearch(ABC):
    """A search of a corpus that is on one CPU, with the bits of the one in float32.

    Args:
      plain: `(keep=) -> search`, in float32.
      keep: how that keeps its blocks, see `DeviceSearch`.

    Attributes:
      repeated: queries of the last call that were searched again in float32.
    """

    def __init__(self, plain: Callable[..., DeviceSearch], keep: Callable[[Group], Callable[[], Group]] | None = None):
        self._plain = plain(keep=keep)
        self._k, self._lanes = self._plain.k, self._plain.lanes
        self.repeated = 0

    @staticmethod
    @abstractmethod
    def kept(k: int) -> int:
        """How many documents a scan keeps for each query."""

    @staticmethod
    @abstractmethod
    def workspace(k: int, mesh: Mesh, corpus: Vectors | StoredVectors) -> int:
        """Bytes that a search needs besides the corpus."""

    @abstractmethod
    def __call__(self, queries: Vectors, scored: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray]:
        """Scores and positions of the best k documents for each query.

        Args:
          queries: their vectors.
          scored: hears of how many queries and documents more.
        """

    @classmethod
    def pays(cls, k: int, documents: int) -> bool:
        """Whether it is faster than the search in float32."""
        return multiplies_bfloat16() and WORTH * cls.kept(k) <= documents

    def _again(self, unproven: np.ndarray, queries: Vectors, scores: np.ndarray, positions: np.ndarray) -> int:
        """Replaces what was found, `[q k]`, for the unproven queries, bool `[q]`; says how many these are."""
        again = np.flatnonzero(unproven)
        if len(again):
            # Batches of the shape that all the queries would be in.
            rows = np.resize(again, max(len(again), min(len(queries), batching.BATCH[0] + 1)))
            found = self._plain(queries.chosen(rows), lambda *_: None)
            scores[again], positions[again] = (part[: len(again)] for part in found)
        return len(again)
