"""BGE-M3's protocol: dense and lexical search find candidates together, late interaction ranks the first of them.

Chen et al. 2024, "M3-Embedding", sections 3.2 and 4.1; scores are added as they are, without normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxret.errors import InputError
from jaxret.search.fusion import weighted
from jaxret.search.pairs import vector_scores
from jaxret.search.runs import Run, first, with_scores
from jaxret.search.store import StoredVectors
from jaxret.search.vectors import Vectors

HYBRIDS = ("dense_lexical", "reranked", "hybrid")
MODES = ("dense", "lexical", "multi_vector")
RESULTS_AT_ONCE = 2048


@dataclass(frozen=True)
class HybridSettings:
    """The numbers of the protocol.

    Attributes:
      weights: of the dense, the lexical and the late interaction score.
      candidates: results a query of the dense and of the lexical search.
      top_k: how many of both together get new scores.
    """

    weights: tuple[float, ...] = (0.4, 0.2, 0.4)
    candidates: int = 1000
    top_k: int = 200

    def __post_init__(self) -> None:
        if len(self.weights) != 3 or min(self.weights) < 0 or not sum(self.weights[:2]):
            problem = f"{','.join(f'{weight:g}' for weight in self.weights)} are no weights of dense, lexical, MaxSim"
            raise InputError("hybrid_weights", problem, "Give three of 0 and more, the first two not both 0.")
        if not 1 <= self.top_k <= self.candidates:
            problem = f"{self.top_k} documents ranked again, of {self.candidates} candidates"
            raise InputError("hybrid_depth", problem, "Give candidates,top_k with 1 <= top_k <= candidates.")


def hybrid_runs(
    dense: Run, lexical: Run, score: Callable[[Run, str], np.ndarray], settings: HybridSettings
) -> dict[str, Run]:
    """The runs of the protocol, by their names in HYBRIDS.

    `dense_lexical` has all candidates by the weighted sum of both scores, 0 for what one of them has not found;
    `reranked` the first `top_k` of these by MaxSim; `hybrid` the same by the weighted sum of all three scores.

    Args:
      dense, lexical: with `candidates` results a query.
      score: gives the score of each result of a run in a mode, float32 [total].
      settings: weights and depths.
    """
    both = weighted([dense, lexical], settings.weights[:2], "none", "zero")
    chosen = first(both, settings.top_k)
    scores = {mode: score(chosen, mode) for mode in MODES}
    # Summed in float64, as `weighted` does.
    total = sum(w * scores[mode].astype(np.float64) for w, mode in zip(settings.weights, MODES, strict=True))
    return {
        "dense_lexical": both,
        "reranked": with_scores(chosen, scores["multi_vector"]),
        "hybrid": with_scores(chosen, np.asarray(total)),
    }


def result_scores(
    run: Run, mode: str, queries: Vectors, document_ids: Sequence[str], documents: Vectors | StoredVectors, rule: str
) -> np.ndarray:
    """The score of each result of a run, float32 [total], by the model's own rule.

    Args:
      run: its rows are those of `queries`.
      mode: "dense", "lexical" or "multi_vector".
      queries, documents: vectors; stored ones are read `RESULTS_AT_ONCE` at a time.
      document_ids: of the rows of `documents`.
      rule: of MaxSim, see `ops.maxsim.RULES`.
    """
    row_of = {name: row for row, name in enumerate(document_ids)}
    rows = np.array([row_of[name] for name in run.documents], np.int64)[run.indices]
    scores = [np.zeros(0, np.float32)]
    for start in range(0, len(rows), RESULTS_AT_ONCE):
        stop = start + RESULTS_AT_ONCE
        chosen, places = np.unique(rows[start:stop], return_inverse=True)
        pairs = list(zip(run.rows[start:stop].tolist(), places.tolist(), strict=True))
        scores.append(vector_scores(queries, documents.rows(chosen), pairs, mode, rule))
    return np.concatenate(scores)
