"""What a run minimises, with the parameters and the state that are the objective's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxret.errors import InputError
from jaxret.runtime.network import Network

OWN = "objective"  # where the objective's parameters stand among the model's
DRAW = 1  # sets its random numbers apart from the model's
Loss = Callable[..., Any]


def nothing(model: Network, params: Any, key: jax.Array) -> tuple[Any, Any]:
    """No parameters and no state."""
    return {}, {}


def unchanged(state: Any) -> Any:
    """The state itself."""
    return state


def anything(batch: Mapping[str, np.ndarray]) -> None:
    """Every batch will do."""


def languages_below(count: int, setting: str) -> Callable[[Mapping[str, np.ndarray]], None]:
    """A check that a batch's `language` numbers are below `count`; `setting` is named in the InputError."""

    def check(batch: Mapping[str, np.ndarray]) -> None:
        if count > 1 and (largest := int(batch["language"].max())) >= count:
            problem = f"{count}, but the batch has language number {largest}"
            raise InputError(setting, problem, f"Give at least {largest + 1}, or number the sources' languages anew.")

    return check


@dataclass(frozen=True)
class Objective:
    """A loss, and what it starts from.

    Attributes:
      loss: `(model, params, state, batch, rng) -> (scalar, (state, {name: scalar}))`. The model is called as
        `(params, token_ids, side, rng) -> Embeddings`; `params["objective"]` are the parameters that `init` adds.
      init: `(model, params, key) -> (parameters, state)` before the first step. The parameters (a decoder, a projection
        head) are trained with the model's and stay out of the saved model. The state is any pytree. Leaves may carry
        logical axis names (`flax.linen.with_logical_partitioning`), as those of `params` do while shapes are made; the
        others are on every device.
      load: `state -> state`, outside of any trace, once before the first step: puts what comes from files (a teacher)
        in the place of what `init` made, with the same shapes and shardings.
      check: raises InputError for a batch, still on the host, that the loss would silently take wrongly.
    """

    loss: Loss
    init: Callable[[Any, Any, jax.Array], tuple[Any, Any]] = nothing
    load: Callable[[Any], Any] = unchanged
    check: Callable[[Mapping[str, np.ndarray]], None] = anything

    def begun(self, model: Network, params: Any, seed: int) -> tuple[Any, Any]:
        """The model's parameters with the objective's, and the first state; traceable, boxes stay."""
        added, state = self.init(model, params, jax.random.fold_in(jax.random.key(seed), DRAW))
        return ({**params, OWN: added} if added else params), state


def objective_of(objective: Objective | Loss) -> Objective:
    """A loss alone as an Objective without parameters and state."""
    return objective if isinstance(objective, Objective) else Objective(objective)


def divided(params: Any) -> tuple[Any, Any]:
    """The model's parameters, and a tree of those that the objective added."""
    mine = {name: tree for name, tree in params.items() if name != OWN}
    return mine, {name: tree for name, tree in params.items() if name == OWN}


def copied(params: Any) -> Any:
    """A copy of the parameters for the state (a momentum encoder); it lies where they lie."""
    return jax.tree.map(jnp.copy, params)
