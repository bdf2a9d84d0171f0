"""Merging parameters of models that share their shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NEARLY_PARALLEL = 1e-4  # radians below which the arc is a line, to float32


def ema_weights(count: int, decay: float) -> list[float]:
    """The weights that an exponential moving average gives to `count` checkpoints, the oldest first; they add up to 1.

    `average = decay * average + (1 - decay) * new`, begun with the oldest.
    """
    later = [(1 - decay) * decay ** (count - 1 - place) for place in range(1, count)]
    return [decay ** (count - 1), *later]


def task_weights(weights: Sequence[float]) -> list[float]:
    """The weights of a base and of models tuned from it in `base + sum_i weight_i * (model_i - base)`.

    Task arithmetic (Ilharco et al. 2023, section 2).
    """
    return [1 - sum(weights), *weights]


def slerp(a: Any, b: Any, t: float) -> Any:
    """Tensor by tensor, the point at `t` on the arc from `a` (0) to `b` (1) (Shoemake 1985, section 3.3), float32.

    The angle is between the tensors as flat vectors; their lengths are interpolated with them, as the formula has it.
    Tensors that point the same or the opposite way, or are 0, lie on a line.
    """
    return jax.tree.map(lambda x, y: _arc(jnp.asarray(x), jnp.asarray(y), t), a, b)


def _arc(a: Float[Array, "*n"], b: Float[Array, "*n"], t: float) -> Float[Array, "*n"]:
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    unit_a, unit_b = (x / jnp.maximum(jnp.linalg.norm(x.ravel()), 1e-30) for x in (a, b))
    # The angle from both chords: an arc cosine loses half the digits of a small angle.
    angle = 2 * jnp.arctan2(jnp.linalg.norm((unit_a - unit_b).ravel()), jnp.linalg.norm((unit_a + unit_b).ravel()))
    sine = jnp.sin(angle)
    bent = (sine > NEARLY_PARALLEL) & (jnp.linalg.norm(a.ravel()) > 0) & (jnp.linalg.norm(b.ravel()) > 0)
    safe = jnp.where(bent, sine, 1.0)
    from_a = jnp.where(bent, jnp.sin((1 - t) * angle) / safe, 1 - t)
    from_b = jnp.where(bent, jnp.sin(t * angle) / safe, t)
    return from_a * a + from_b * b
