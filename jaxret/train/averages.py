"""Averages of the parameters over the steps, and which parameters of a run are to be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxret.errors import InputError
from jaxret.train.low_rank import with_factors_merged
from jaxret.train.patterns import frozen_in, is_hole, states_of
from jaxret.train.schedule_free import ScheduleFreeState, averaged_iterates


@flax.struct.dataclass
class AveragedState:
    """The state of `averaged`.

    Attributes:
      inner: of the optimiser.
      average: float32, of the parameters' shapes; `optax.MaskedNode` in the place of those that the optimiser freezes.
      count: steps done, int32.
    """

    inner: Any
    average: Any
    count: Any


def averaged(
    steps: int,
    *,
    optimizer: Callable[[int], optax.GradientTransformation],
    decay: float,
    every: int = 1,
    warmup: bool = True,
) -> optax.GradientTransformation:
    """An optimiser that keeps an exponential moving average of the parameters; they train as they would without.

    Args:
      steps: length of the run.
      optimizer: `(steps) -> GradientTransformation`.
      decay: share of the average that stays when the parameters are added, from 0 to below 1.
      every: steps from one addition to the next.
      warmup: after `n` additions no more than `(1 + n) / (10 + n)` stays, so that the first parameters are soon
        forgotten.

    Raises:
      InputError: no such share or number of steps; (before anything is compiled) the optimiser has an average already.
    """
    if not 0 <= decay < 1:
        raise InputError("averaged.decay", f"{decay} is no share", "Give a number from 0 to below 1.")
    if every < 1:
        raise InputError("averaged.every", f"{every} is not a number of steps", "Give 1 or more.")
    inner = optimizer(steps)

    def init(params: Any) -> AveragedState:
        state = inner.init(params)
        if states_of(state, AveragedState, ScheduleFreeState):
            problem = "it keeps an average of its own"
            raise InputError("averaged.optimizer", problem, "Use it alone, or bind optimizers.adamw.")
        start = jax.tree.map(
            lambda held, x: optax.MaskedNode() if held else jnp.array(x, jnp.float32), frozen_in(params, state), params
        )
        return AveragedState(state, start, jnp.zeros((), jnp.int32))

    def update(gradient: Any, state: Any, params: Any = None) -> Any:
        updates, below = inner.update(gradient, state.inner, params)
        count = state.count + 1
        number = (count // every - 1).astype(jnp.float32)
        kept = jnp.minimum(decay, (1 + number) / (10 + number)) if warmup else jnp.float32(decay)

        def added(average: Any) -> Any:
            return jax.tree.map(
                lambda p, u, a: a if is_hole(a) else a + (1 - kept) * ((p + u).astype(jnp.float32) - a),
                params,
                updates,
                average,
            )

        if every == 1:
            average = added(state.average)
        else:
            average = lax.cond(count % every == 0, added, lambda average: average, state.average)
        return updates, AveragedState(below, average, count)

    return optax.GradientTransformation(init, update)


def used_params(params: Any, optimizer_state: Any) -> Any:
    """The parameters to evaluate and to publish, in the tree and the dtypes of those that are trained; traceable.

    The moving average of `averaged`, or the averaged iterates of `adamw.schedule_free`, or the parameters themselves;
    each with the factors of `low_rank` merged into their kernels.
    """
    state = next(iter(states_of(optimizer_state, AveragedState, ScheduleFreeState)), None)
    if isinstance(state, AveragedState):
        params = jax.tree.map(lambda p, a: p if is_hole(a) else a.astype(p.dtype), params, state.average)
    elif isinstance(state, ScheduleFreeState):
        b1 = state.b1
        params = jax.tree.map(lambda y, z: y if is_hole(z) else averaged_iterates(y, z, b1), params, state.z)
    return with_factors_merged(params)
