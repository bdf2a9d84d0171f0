"""How sure a mean over queries is: bootstrap intervals, and the paired bootstrap for two systems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

RULE = "95% percentile bootstrap over queries, 10,000 resamples, seed 0"
_CELLS = 2**21  # of a block of resamples: 16 MB as float64


def mean_intervals(
    scores: Mapping[str, np.ndarray], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """`{key: (low, high)}`: percentile bootstrap intervals of the means over queries (Efron 1979).

    Args:
      scores: `{key: [q]}`, as `scores_per_query` gives them; all keys share the resampled queries.
      level: the share of the resampled means inside.
      resamples: how often q queries are drawn with replacement.
      seed: of the draws.
    """
    means = _resampled_means(np.stack(list(scores.values()), axis=1), resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {key: (float(low[i]), float(high[i])) for i, key in enumerate(scores)}


@dataclass(frozen=True)
class Difference:
    """System a less system b on the same queries.

    Attributes:
      mean: of the differences.
      low, high: the ends of its interval.
      p_value: two-sided; below 1 - level just when the interval leaves out 0 (but for ties and interpolation).
      wins, losses, ties: queries where a is better than b, worse, the same.
    """

    mean: float
    low: float
    high: float
    p_value: float
    wins: int
    losses: int
    ties: int


def paired_difference(
    a: np.ndarray, b: np.ndarray, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """The paired bootstrap: queries are drawn with the scores of both systems, [q] each in the same order.

    The p value is twice the smaller share of resampled mean differences on either side of 0, 0 included (Efron and
    Tibshirani 1993, chapter 15), with one added to both counts so that it is never 0.
    """
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    means = _resampled_means(differences[:, None], resamples, seed)[:, 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    side = min((means <= 0).sum(), (means >= 0).sum())
    return Difference(
        mean=float(differences.mean()),
        low=float(low),
        high=float(high),
        p_value=min(1.0, 2 * (int(side) + 1) / (resamples + 1)),
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        ties=int((differences == 0).sum()),
    )


def _resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """[resamples m]: means of the columns of `values` [q m] over queries drawn with replacement."""
    num_queries = len(values)
    return np.concatenate([counts @ values for counts in _counts(num_queries, resamples, seed)]) / num_queries


def _counts(num_queries: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks [n q] of how often each query was drawn; a matrix product with them serves all measures at once."""
    random = np.random.default_rng(seed)
    block = max(1, _CELLS // num_queries)
    for first in range(0, resamples, block):
        rows = min(block, resamples - first)
        drawn = random.integers(0, num_queries, (rows, num_queries), dtype=np.int32)
        drawn += np.arange(rows, dtype=np.int32)[:, None] * num_queries
        yield np.bincount(drawn.ravel(), minlength=rows * num_queries).reshape(rows, num_queries).astype(np.float64)
