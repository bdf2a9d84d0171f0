"""Regularisers of learned sparse representations, and how their weight grows."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.ops.masked import everywhere, precise


def flops(weights: Float[Array, "b v"], *, where: Bool[Array, " b"] | None = None) -> Float[Array, ""]:
    """`sum_v (mean_b w)^2`: what matching two random texts costs (Paria et al. 2020; SPLADE, Formal et al. 2021).

    A number of the whole batch, the texts where `where` is False left out; 0 where all are.
    """
    where = everywhere(where, weights[:, 0])
    total = jnp.sum(jnp.abs(jnp.where(where[:, None], precise(weights), 0.0)), axis=0)
    return jnp.sum(jnp.square(total / jnp.maximum(jnp.sum(where), 1)))


def l1_norm(weights: Float[Array, "b v"]) -> Float[Array, " b"]:
    """`sum_v |w|`: Granite's NORM (Awasthy et al. 2025, eq. 10), where w is the maximum over tokens."""
    return jnp.sum(jnp.abs(precise(weights)), axis=1)


def linear_ramp(step: int | Int[Array, ""], steps: int) -> Float[Array, ""]:
    """From 0 to 1 over so many steps, at least one, and 1 from there on."""
    return jnp.minimum(jnp.asarray(step, jnp.float32) / max(steps, 1), 1.0)


def quadratic_ramp(step: int | Int[Array, ""], steps: int) -> Float[Array, ""]:
    """The square of `linear_ramp`: how SPLADE's regularisation grows (Formal et al. 2021, after Paria et al. 2020)."""
    return jnp.square(linear_ramp(step, steps))
