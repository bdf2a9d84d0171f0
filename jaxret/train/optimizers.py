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
from jaxret.train.schedule_free import schedule_free
from jaxret.train.schedules import constant, cosine

Schedule = Callable[..., optax.Schedule]
NO_RATES: dict[str, float] = {}


def adamw(
    steps: int,
    *,
    learning_rate: float,
    schedule: Schedule = cosine,
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
) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019) with linear warm-up, a schedule and clipping by the global norm.

    Args:
      steps: length of the run.
      learning_rate: at the peak.
      schedule: `(steps, learning_rate, warmup=, final=) -> schedule`, see `train.schedules`.
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
    """
    rate = schedule(steps, learning_rate, warmup=warmup, final=final)
    mask = _decayed(no_decay)
    plain = optax.adamw(rate, b1=b1, b2=b2, eps=epsilon, weight_decay=weight_decay, mask=mask)
    factors = [scaled(learning_rates, layer_decay)] if learning_rates or layer_decay is not None else []
    whole = optax.chain(optax.clip_by_global_norm(clip), plain, *factors)
    return _by_patterns("adamw", whole, learning_rates, layer_decay, frozen, trained, no_decay)


def schedule_free_adamw(
    steps: int,
    *,
    learning_rate: float,
    schedule: Schedule = constant,
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
) -> optax.GradientTransformation:
    """AdamW without momentum, whose parameters are averaged instead of its rate lowered (Defazio et al. 2024).

    The parameters to evaluate and to publish are `averages.used_params`. `b1` is the share of that average in the
    parameters that the gradient is taken at, which is also where the weights decay. The other arguments are as
    `adamw` has them; the rate need not fall, so that a run may be prolonged.
    """
    rate = schedule(steps, learning_rate, warmup=warmup, final=final)
    direction = optax.chain(
        optax.clip_by_global_norm(clip),
        optax.scale_by_rms(b2, epsilon, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(weight_decay, _decayed(no_decay)),
        scaled(learning_rates, layer_decay),
    )
    whole = schedule_free(direction, rate, b1)
    return _by_patterns("schedule_free_adamw", whole, learning_rates, layer_decay, frozen, trained, no_decay)


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
    name: str,
    optimizer: optax.GradientTransformation,
    learning_rates: Mapping[str, float],
    layer_decay: float | None,
    frozen: Sequence[str],
    trained: Sequence[str],
    no_decay: Sequence[str] | None,
) -> optax.GradientTransformation:
    """The optimiser of the parameters that are not frozen, all patterns checked."""
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise InputError(f"{name}.layer_decay", f"{layer_decay} is no factor", "Give a number above 0, 1 at most.")
    patterns = {
        "learning_rates": tuple(learning_rates),
        "layer_decay": () if layer_decay is None else (STACK,),
        "frozen": tuple(frozen),
        "trained": tuple(trained),
        "no_decay": tuple(no_decay or ()),
    }
    used = {f"{name}.{setting}": found for setting, found in patterns.items() if found}
    held = (*frozen, *([all_but(trained)] if trained else []))
    optimizer = partly(optimizer, held) if held else optimizer
    return checked(optimizer, used) if used else optimizer
