"""Which implementation of MaxSim scores a block of documents: a kernel on TPUs, or the plain one."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float

from jaxret.ops import block_scores
from jaxret.ops.block_scores import QueryTokens, Tiles


def multi_vector_scores(queries: QueryTokens, documents: Tiles) -> Float[Array, "b c"]:
    """As the plain `multi_vector_scores`.

    A program for a mesh of TPUs has the kernel where it takes the shapes (see `maxsim_kernel.unfit`).
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None and device.platform == "tpu":
        from jaxret.runtime import maxsim_kernel

        if not maxsim_kernel.unfit(queries, documents):
            return maxsim_kernel.kernel_scores(queries, documents)
    return block_scores.multi_vector_scores(queries, documents)
