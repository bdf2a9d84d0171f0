"""Schedule-free optimisation: an average of the iterates takes the place of a falling learning rate."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxret.errors import InputError


@flax.struct.dataclass
class ScheduleFreeState:
    """The state of `schedule_free`.

    Attributes:
      inner: of the direction.
      z: the iterates themselves, of the parameters' shapes.
      count: steps done, int32.
      highest: the highest learning rate so far.
      total: the sum of the iterates' weights in the average.
      b1: see `schedule_free`.
    """

    inner: Any
    z: Any
    count: Any
    highest: Any
    total: Any
    b1: float = flax.struct.field(pytree_node=False)


def averaging_iterates(
    direction: optax.GradientTransformation, learning_rate: optax.Schedule, b1: float
) -> optax.GradientTransformation:
    """Steps along `direction` from the iterates z; the parameters y are between them and their average x.

    With the direction g at y and the rate r, `z -= r g`, `x = (1 - c) x + c z`, `y = (1 - b1) z + b1 x` (Defazio et al.
    2024). An iterate's weight in x is the square of the highest rate so far, so that those of the warm-up count little.
    x is not kept, see `averaged_iterates`.

    Args:
      direction: from gradients to what is subtracted, times the rate, without a momentum of its own.
      learning_rate: by step.
      b1: the share of x in y, above 0.

    Raises:
      InputError: no such share.
    """
    if not 0 < b1 <= 1:
        raise InputError("adamw.b1", f"{b1} is no share", "Give a number above 0, 1 at most.")

    def init(params: Any) -> ScheduleFreeState:
        zero = jnp.zeros((), jnp.float32)
        count = jnp.zeros((), jnp.int32)
        return ScheduleFreeState(direction.init(params), jax.tree.map(jnp.copy, params), count, zero, zero, b1)

    def update(gradient: Any, state: Any, params: Any = None) -> Any:
        rate = jnp.asarray(learning_rate(state.count), jnp.float32)
        highest = jnp.maximum(state.highest, rate)
        total = state.total + highest**2
        share = jnp.where(total > 0, highest**2 / jnp.where(total > 0, total, 1.0), 0.0)
        steps, inner = direction.update(gradient, state.inner, params)
        # y moves by this; x itself is not needed.
        updates = jax.tree.map(
            lambda g, y, z: (share * (z - y) + rate * (b1 * (1 - share) - 1) * g).astype(y.dtype),
            steps,
            params,
            state.z,
        )
        z = jax.tree.map(lambda g, z: (z - rate * g).astype(z.dtype), steps, state.z)
        return updates, state.replace(inner=inner, z=z, count=state.count + 1, highest=highest, total=total)

    return optax.GradientTransformation(init, update)


def averaged_iterates(y: jax.Array, z: jax.Array, b1: float) -> jax.Array:
    """The x of `schedule_free`, from the parameter y and the iterate z."""
    return (y + (1 - b1) / b1 * (y - z)).astype(y.dtype)
