"""Any loss over vectors, at several lengths of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxret.errors import InputError
from jaxret.ops.vectors import unit


def matryoshka(
    loss: Callable[..., Float[Array, " b"]],
    vectors: Sequence[Float[Array, "... k"]],
    sizes: Sequence[int],
    weight: Sequence[float] | None = None,
) -> Float[Array, " b"]:
    """`sum_m c_m loss(first m components of each vector, made unit again)` (Kusupati et al. 2022, eq. 1).

    Args:
      loss: of as many arrays as there are in `vectors`.
      vectors: all of one width `k`.
      sizes: the lengths m.
      weight: c, one a size; all 1 by default.

    Raises:
      InputError: no size, a size outside 1 to k, or another number of weights.
    """
    weight = [1.0] * len(sizes) if weight is None else weight
    widths = {x.shape[-1] for x in vectors}
    if not sizes or min(sizes) < 1 or max(sizes) > min(widths):
        raise InputError(
            "sizes", f"{list(sizes)} with vectors of {sorted(widths)}", "Give lengths from 1 to the width."
        )
    if len(weight) != len(sizes):
        raise InputError("weight", f"{len(weight)} weights for {len(sizes)} sizes", "Give one a size.")
    parts = [c * loss(*(unit(x[..., :m]) for x in vectors)) for m, c in zip(sizes, weight, strict=True)]
    return jnp.sum(jnp.stack(parts), axis=0)
