"""The training state and one jitted step; knows no retrieval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxret.runtime.mesh import batch_sharding


@flax.struct.dataclass
class TrainState:
    """All that a step changes, or the shape or sharding of each part of it. Checkpointed and sharded as a whole.

    Attributes:
      step: steps done, an int32 scalar.
      params: the parameters, those that the objective adds among them.
      optimizer: the optimiser's state.
      objective: the objective's state.
    """

    step: Any
    params: Any
    optimizer: Any
    objective: Any


def fresh_state(params: Any, optimizer: optax.GradientTransformation, objective: Any) -> TrainState:
    """The state before the first step, of parameters and the objective's state; traceable."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), objective)


def state_shardings(
    state: TrainState, params: Any, objective: Any, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shardings for a whole state; the optimiser's moments follow their parameters.

    Args:
      state: the abstract state.
      params: the parameters' shardings.
      objective: those of the objective's state.
      optimizer: the one whose state it holds.
      mesh: the mesh.
    """
    replicated = NamedSharding(mesh, PartitionSpec())
    moments = optax.tree_utils.tree_map_params(
        optimizer, lambda _, sharding: sharding, state.optimizer, params, transform_non_params=lambda _: replicated
    )
    return TrainState(replicated, params, moments, objective)


def train_step(
    state: TrainState,
    batch: dict[str, Array],
    *,
    apply: Any,
    objective: Any,
    optimizer: optax.GradientTransformation,
    seed: int,
) -> tuple[TrainState, dict[str, Array]]:
    """One step: gradient, update, metrics. Its randomness depends on the seed and the step alone."""
    rng = jax.random.fold_in(jax.random.key(seed), state.step)

    def loss(params: Any) -> Any:
        return objective(apply, params, state.objective, batch, rng)

    (value, (objective_state, metrics)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, moments = optimizer.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = metrics | {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
    return TrainState(state.step + 1, params, moments, objective_state), metrics


def jitted_step(step: Callable, shardings: TrainState, mesh: Mesh) -> Callable:
    """The step compiled for the mesh, which it finds in its context; the state's memory is donated."""
    replicated = NamedSharding(mesh, PartitionSpec())

    def on_mesh(state: TrainState, batch: dict[str, Array]) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return step(state, batch)

    return jax.jit(
        on_mesh,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated),
        donate_argnums=0,
    )
