"""Which candidates may count as negatives: masks for the losses, True where a candidate may."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.ops.masked import precise
from jaxret.ops.memory_bank import UNKNOWN


def other_texts(own: Int[Array, "b p"], keys: Int[Array, "#b c"]) -> Bool[Array, "b c"]:
    """False where a candidate is one of the texts that are known to answer the query.

    Args:
      own: keys of the query's relevant texts; rows are filled up with -1, which is no text's key.
      keys: of the candidates, in one row for all queries or in a row for each.
    """
    same = (own[:, :, None] == keys[:, None, :]) & (own != UNKNOWN)[:, :, None]
    return ~jnp.any(same, axis=1)


def below_positive(
    teacher: Float[Array, "b c"], positive: Float[Array, " b"], margin: float = 0.0, relative_margin: float = 0.0
) -> Bool[Array, "b c"]:
    """True where the teacher's score is at most the positive's less both margins.

    A guide's rule for in-batch negatives (GISTEmbed, Solatorio 2024), and with margins the positive-aware rules of
    NV-Retriever (de Souza P. Moreira et al. 2024): TopK-MarginPos and TopK-PercPos. `jaxret mine` has the same.

    Args:
      teacher: its scores of the candidates.
      positive: its score of each query's positive.
      margin: in the teacher's units.
      relative_margin: as a share of the positive's absolute score.
    """
    positive = precise(positive)
    return precise(teacher) <= (positive - margin - relative_margin * jnp.abs(positive))[:, None]
