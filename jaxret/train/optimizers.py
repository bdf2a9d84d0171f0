"""Optimisers, as functions of the number of steps.

Where a pattern is asked for, it is a regular expression for whole leading parts of a parameter's path, see
`train.patterns`; one that matches nothing raises InputError before anything is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

from jaxret.errors import InputError
from jaxret.train.low_rank import SCALE_PATH
from jaxret.train.patterns import STACK, all_but, checked, matched, partly, scaled
from jaxret.train.schedule_free import averaging_iterates
from jaxret.train.schedules import constant, cosine

Schedule = Callable[..., optax.Schedule]
NO_RATES: dict[str, float] = {}


def adamw(
    steps: int,
    *,
    learning_rate: float,
    schedule: Schedule | None = None,
    warmup: float = 0.1,
    final: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
    clip: float = 1.0,
    learning_rates: Mapping[str, float] = NO_RATES,
    layer_decay: float | None = None,
    frozen: Sequence[str] = (),
    trained: Sequence[str] = (),
    no_decay: Sequence[str] | None = None,
    schedule_free: bool = False,
) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019) with linear warm-up, a schedule and clipping by the global norm.

    Args:
      steps: length of the run.
      learning_rate: at the peak.
      schedule: `(steps, learning_rate, warmup=, final=) -> schedule`, see `train.schedules`; cosine, or constant
        with `schedule_free`.
      warmup: share of the steps that warm up.
      final: last learning rate as a share of the peak.
      b1, b2, epsilon: of Adam.
      weight_decay: of parameters with two or more axes; scales and biases have none.
      clip: largest global norm of the gradient.
      learning_rates: a factor of the learning rate for each pattern; the first that matches counts.
      layer_decay: each layer of the encoder learns so many times as fast as the one above it, see `patterns.scaled`.
      frozen: patterns of parameters that stay as they are; they have no moments.
      trained: patterns of the only parameters that do not; "objective" are the objective's own.
      no_decay: patterns of parameters without weight decay, in place of scales and biases.
      schedule_free: the parameters are averaged instead of the rate lowered, so that a run may be prolonged (Defazio
        et al. 2024). `averages.used_params` are those to evaluate and to publish; `b1` is the share of that average in
        the parameters that the gradient is taken at, which is also where the weights decay.
    """
    rate = (schedule or (constant if schedule_free else cosine))(steps, learning_rate, warmup=warmup, final=final)
    clipped, decayed = optax.clip_by_global_norm(clip), optax.add_decayed_weights(weight_decay, _decayed(no_decay))
    factors = [scaled(learning_rates, layer_decay)] if learning_rates or layer_decay is not None else []
    if schedule_free:
        scale = optax.scale_by_rms(b2, epsilon, eps_in_sqrt=False, bias_correction=True)
        whole = averaging_iterates(optax.chain(clipped, scale, decayed, *factors), rate, b1)
    else:
        scale = optax.scale_by_adam(b1, b2, epsilon)
        whole = optax.chain(clipped, scale, decayed, optax.scale_by_learning_rate(rate), *factors)
    return _by_patterns(whole, learning_rates, layer_decay, frozen, trained, no_decay)


def matrices(params: Any) -> Any:
    """True for kernels and embeddings, False for scales and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, x: path[-1].key not in ("scale", "bias"), params)


def _decayed(no_decay: Sequence[str] | None) -> Callable[[Any], Any]:
    """Which parameters decay, as optax asks."""
    if no_decay is None:
        return matrices
    without = (*no_decay, SCALE_PATH)
    return lambda params: jax.tree.map(lambda found: not found, matched(params, without))


def _by_patterns(
    optimizer: optax.GradientTransformation,
    learning_rates: Mapping[str, float],
    layer_decay: float | None,
    frozen: Sequence[str],
    trained: Sequence[str],
    no_decay: Sequence[str] | None,
) -> optax.GradientTransformation:
    """The optimiser of the parameters that are not frozen, all patterns checked."""
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise InputError("adamw.layer_decay", f"{layer_decay} is no factor", "Give a number above 0, 1 at most.")
    patterns = {
        "learning_rates": tuple(learning_rates),
        "layer_decay": () if layer_decay is None else (STACK,),
        "frozen": tuple(frozen),
        "trained": tuple(trained),
        "no_decay": tuple(no_decay or ()),
    }
    used = {f"adamw.{setting}": found for setting, found in patterns.items() if found}
    held = (*frozen, *([all_but(trained)] if trained else []))
    optimizer = partly(optimizer, held) if held else optimizer
    return checked(optimizer, used) if used else optimizer
