"""Learning rates by step: `(steps, learning_rate, ...) -> schedule`, whose shares are of the whole run.

All warm up linearly from 0 to the peak, for at least one step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from jaxret.errors import InputError


def cosine(steps: int, learning_rate: float, *, warmup: float = 0.1, final: float = 0.0) -> optax.Schedule:
    """Half a cosine from the peak down to `final` (SGDR without restarts, Loshchilov and Hutter 2017).

    Args:
      steps: length of the run.
      learning_rate: at the peak.
      warmup: share of the steps that warm up.
      final: last learning rate as a share of the peak.
    """
    warmup_steps = _warmup_steps("cosine", steps, warmup)
    return optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup_steps, max(steps, warmup_steps + 1), final * learning_rate
    )


def linear(steps: int, learning_rate: float, *, warmup: float = 0.1, final: float = 0.0) -> optax.Schedule:
    """A straight line from the peak down to `final`, as BERT has it (Devlin et al. 2019); arguments as `cosine`."""
    warmup_steps = _warmup_steps("linear", steps, warmup)
    down = optax.linear_schedule(learning_rate, final * learning_rate, max(1, steps - warmup_steps))
    return _after_warmup(learning_rate, warmup_steps, down)


def constant(steps: int, learning_rate: float, *, warmup: float = 0.1, final: float = 0.0) -> optax.Schedule:
    """The peak to the end; `final` takes no part. Other arguments as `cosine`."""
    warmup_steps = _warmup_steps("constant", steps, warmup)
    return _after_warmup(learning_rate, warmup_steps, optax.constant_schedule(learning_rate))


def inverse_square_root(steps: int, learning_rate: float, *, warmup: float = 0.1, final: float = 0.0) -> optax.Schedule:
    """The peak times `sqrt(warm-up steps / step)`, at least `final` of it (Vaswani et al. 2017, eq. 3).

    Arguments as `cosine`.
    """
    warmup_steps = _warmup_steps("inverse_square_root", steps, warmup)

    def down(count: Any) -> Any:
        return learning_rate * jnp.maximum(final, jnp.sqrt(warmup_steps / (count + warmup_steps)))

    return _after_warmup(learning_rate, warmup_steps, down)


def warmup_stable_decay(
    steps: int,
    learning_rate: float,
    *,
    warmup: float = 0.1,
    final: float = 0.0,
    decay: float = 0.2,
    shape: str = "linear",
) -> optax.Schedule:
    """The peak for most of the run, then a fall to `final` at its end (WSD; MiniCPM, Hu et al. 2024).

    Args:
      steps: length of the run.
      learning_rate: at the peak.
      warmup: share of the steps that warm up.
      final: last learning rate as a share of the peak.
      decay: share of the steps in which it falls.
      shape: of the fall by its share `u` that is over: "linear", "cosine", or "sqrt" for `1 - sqrt(u)` (Hägele et al.
        2024).

    Raises:
      InputError: unknown shape, or shares that leave no room for each other.
    """
    if shape not in SHAPES:
        place = "warmup_stable_decay.shape"
        raise InputError(place, f"unknown {shape!r}", f"Choose one of {', '.join(SHAPES)}.")
    if not 0 < decay <= 1 - warmup:
        problem = f"{decay} of the steps beside a warm-up of {warmup}"
        raise InputError("warmup_stable_decay.decay", problem, "Give a share above 0 that leaves room for the warm-up.")
    warmup_steps = _warmup_steps("warmup_stable_decay", steps, warmup)
    decay_steps = max(1, round(decay * steps))
    begin = max(0, steps - decay_steps - warmup_steps)

    def stable_then_down(count: Any) -> Any:
        over = jnp.clip((count - begin) / decay_steps, 0.0, 1.0)
        return learning_rate * (final + (1.0 - final) * SHAPES[shape](over))

    return _after_warmup(learning_rate, warmup_steps, stable_then_down)


SHAPES: dict[str, Callable[[Any], Any]] = {
    "linear": lambda over: 1.0 - over,
    "sqrt": lambda over: 1.0 - jnp.sqrt(over),
    "cosine": lambda over: 0.5 * (1.0 + jnp.cos(jnp.pi * over)),
}


def _warmup_steps(name: str, steps: int, warmup: float) -> int:
    if not 0 <= warmup <= 1:
        raise InputError(f"{name}.warmup", f"{warmup} is no share of the steps", "Give a number from 0 to 1.")
    return max(1, round(warmup * steps))


def _after_warmup(learning_rate: float, warmup_steps: int, rest: optax.Schedule) -> optax.Schedule:
    up = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return lambda count: jnp.where(count < warmup_steps, up(count), rest(jnp.maximum(count - warmup_steps, 0)))
