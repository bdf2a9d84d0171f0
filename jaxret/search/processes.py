"""Several processes that search parts of one corpus."""

from __future__ import annotations

import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float32, Int

from jaxret.ops.topk import EMPTY
from jaxret.search.top_k import NOTHING, TopK


def best_of_processes(
    scores: Float32[np.ndarray, "q k"], positions: Int[np.ndarray, "q k"]
) -> tuple[Float32[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """The best k of what all processes found, on each of them; every process makes this call.

    Args:
      scores: of this process's results.
      positions: of the same; EMPTY where it found fewer than k.
    """
    every = multihost_utils.process_allgather((scores, positions), tiled=False)
    best = TopK(*scores.shape)
    for found, places in zip(*every, strict=True):
        best.add(found, np.where(places == EMPTY, NOTHING, places))
    return best.scores, best.positions.astype(positions.dtype)
