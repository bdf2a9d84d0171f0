"""Several processes that search parts of one corpus."""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float32, Int

from jaxret.ops.topk import EMPTY
from jaxret.runtime.processes import meet
from jaxret.search.top_k import NOTHING, TopK

GATHERED = 2**22  # results of all processes that are in memory at a time, some 100 MB


def best_of_processes(
    scores: Float32[np.ndarray, "q k"], positions: Int[np.ndarray, "q k"]
) -> tuple[Float32[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """The best k of what all processes found, on each of them; every process makes this call.

    Args:
      scores: of this process's results.
      positions: of the same; EMPTY where it found fewer than k.
    """
    meet("results")
    rows = max(1, GATHERED // (scores.shape[1] * jax.process_count()))
    best_scores, best_positions = np.empty_like(scores), np.empty_like(positions)
    for start in range(0, len(scores), rows):
        mine = slice(start, start + rows)
        every = multihost_utils.process_allgather((scores[mine], positions[mine]), tiled=False)
        best = TopK(*scores[mine].shape)
        for found, places in zip(*every, strict=True):
            best.add(found, np.where(places == EMPTY, NOTHING, places))
        best_scores[mine], best_positions[mine] = best.scores, best.positions
    return best_scores, best_positions
