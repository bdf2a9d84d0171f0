"""What searches with a scan in bfloat16 have in common; see `reduced_dense` and `reduced_maxsim`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxret.runtime.precision import multiplies_bfloat16
from jaxret.search import query_batches as batching
from jaxret.search.vectors import Vectors

WORTH = 8  # times the documents that are kept: a corpus that it is worth for


def pays(kept: int, documents: int) -> bool:
    """Whether a scan that keeps so many documents of a query is faster than a search in float32."""
    return multiplies_bfloat16() and WORTH * kept <= documents


def search_again(
    unproven: np.ndarray,
    queries: Vectors,
    plain: Callable[..., tuple[np.ndarray, np.ndarray]],
    scores: np.ndarray,
    positions: np.ndarray,
) -> int:
    """Replaces what was found, `[q k]`, for the unproven queries, bool `[q]`; says how many these are."""
    again = np.flatnonzero(unproven)
    if len(again):
        # Batches of the shape that all the queries would be in.
        rows = np.resize(again, max(len(again), min(len(queries), batching.BATCH[0] + 1)))
        found = plain(queries.chosen(rows), lambda *_: None)
        scores[again], positions[again] = (part[: len(again)] for part in found)
    return len(again)
