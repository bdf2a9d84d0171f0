"""A training state as a checkpoint: the parameters to use apart from what else the training needs to go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxret.runtime.checkpoints import Checkpoints
from jaxret.train.averages import used_params
from jaxret.train.objective import OWN, divided
from jaxret.train.step import TrainState


def starting_state(
    checkpoints: Checkpoints, step: int | None, first: Callable[[], TrainState], abstract: TrainState
) -> TrainState:
    """The state of a checkpoint, placed as the abstract one; where there is no step the first one, which is saved."""
    if step is None:
        state = first()
        save(checkpoints, 0, state)
        return state
    rest = _rest(abstract)
    used, rest, _ = checkpoints.restore(step, divided(abstract.params)[0], rest)
    return dataclasses.replace(rest, params=unflatten_dict(flatten_dict(used) | flatten_dict(rest.params)))


def save(
    checkpoints: Checkpoints,
    step: int,
    state: TrainState,
    position: Mapping[str, Any] | None = None,
    *,
    background: bool = False,
) -> None:
    """Writes the state after a step, with what is to be known of the run there."""
    position = {"batches": step, **(position or {})}
    checkpoints.save(step, published(state), _rest(state), position, background=background)


def published(state: TrainState) -> Any:
    """The model's parameters as they are evaluated and saved."""
    return divided(used_params(state.params, state.optimizer))[0]


def _rest(state: TrainState) -> TrainState:
    """The state with those parameters alone that are not the published ones: the objective's, averaged and merged ones.

    The trained parameters stand beside the published ones only where the two are not the same.
    """
    same: set[tuple[str, ...]] = set()

    def compare(state: TrainState) -> None:
        used = flatten_dict(used_params(state.params, state.optimizer))
        same.update(path for path, leaf in flatten_dict(state.params).items() if used[path] is leaf and path[0] != OWN)

    jax.eval_shape(compare, state)
    kept = {path: leaf for path, leaf in flatten_dict(state.params).items() if path not in same}
    return dataclasses.replace(state, params=unflatten_dict(kept))
