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

from jaxret.runtime.mesh import batch_sharding, traced_on
from jaxret.train.patterns import held, placed


@flax.struct.dataclass
class TrainState:
    """All that a step changes, or the shape or sharding of each part of it. Checkpointed and sharded as a whole.

    Attributes:
      step: steps done, those without effect among them, an int32 scalar.
      params: the parameters, those that the objective adds among them.
      optimizer: the optimiser's state.
      objective: the objective's state.
      skipped: steps without effect, since their loss or gradient was not finite: `total` and `in_a_row`, the last ones;
        int32 scalars.
    """

    step: Any
    params: Any
    optimizer: Any
    objective: Any
    skipped: Any


def fresh_state(params: Any, optimizer: optax.GradientTransformation, objective: Any) -> TrainState:
    """The state before the first step, of parameters and the objective's state; traceable."""
    step, total, in_a_row = (jnp.zeros((), jnp.int32) for _ in range(3))  # a buffer each: they are donated
    return TrainState(step, params, optimizer.init(params), objective, {"total": total, "in_a_row": in_a_row})


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
    moments = placed(optimizer, state.optimizer, params, replicated)
    return TrainState(replicated, params, moments, objective, jax.tree.map(lambda _: replicated, state.skipped))


def train_step(
    state: TrainState,
    batch: dict[str, Array],
    *,
    apply: Any,
    objective: Any,
    optimizer: optax.GradientTransformation,
    seed: int,
) -> tuple[TrainState, dict[str, Array]]:
    """One step: gradient, update, metrics. Its randomness depends on the seed and the step alone.

    Where the loss or the gradient's norm is not finite, the step counts but changes nothing else.
    """
    (value, (objective_state, metrics)), gradient = gradient_of(state, batch, apply, objective, seed, state.step)
    updates, moments = optimizer.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    missed = (~finite).astype(jnp.int32)
    skipped = {"total": state.skipped["total"] + missed, "in_a_row": (state.skipped["in_a_row"] + 1) * missed}
    params, moments, objective_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (params, moments, objective_state),
        (state.params, state.optimizer, state.objective),
    )
    counts = {"skipped_steps": skipped["total"], "skipped_in_a_row": skipped["in_a_row"]}
    metrics = metrics | {"loss": value, "gradient_norm": norm} | counts
    return TrainState(state.step + 1, params, moments, objective_state, skipped), metrics


def gradient_of(state: TrainState, batch: dict[str, Array], apply: Any, objective: Any, seed: int, step: Any) -> Any:
    """`(loss, (objective state, metrics)), gradient` of the state's parameters in step `step`, counted from 0."""
    rng = jax.random.fold_in(jax.random.key(seed), step)

    def loss(params: Any) -> Any:
        return objective(apply, held(params, state.optimizer), state.objective, batch, rng)

    return jax.value_and_grad(loss, has_aux=True)(state.params)


def jitted_step(step: Callable, shardings: TrainState, mesh: Mesh) -> Callable:
    """The step compiled for the mesh, which it finds in its context; the state's memory is donated."""
    replicated = NamedSharding(mesh, PartitionSpec())

    def on_mesh(state: TrainState, batch: dict[str, Array]) -> Any:
        with traced_on(mesh):
            return step(state, batch)

    return jax.jit(
        on_mesh,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated),
        donate_argnums=0,
    )
