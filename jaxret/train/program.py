"""The step of a run as a compiled program, and what goes into it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from jaxret.runtime.mesh import batch_sharding, parameter_shardings
from jaxret.runtime.network import Network
from jaxret.train.objective import Loss, Objective, objective_of
from jaxret.train.start import begun
from jaxret.train.step import TrainState, jitted_step, state_shardings, train_step


def step_program(
    model: Network,
    objective: Objective | Loss,
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: jax.sharding.Mesh,
) -> tuple[Callable[[TrainState, Any], Any], TrainState]:
    """The jitted step of a run on a mesh, and its state as shapes with shardings."""
    whole = objective_of(objective)
    boxed = jax.eval_shape(lambda: whole.begun(model, model.boxed(seed), seed))
    params, state = parameter_shardings(boxed, mesh)
    shapes = jax.eval_shape(lambda: begun(model, whole, optimizer, seed, model.init(seed)))
    shardings = state_shardings(shapes, params, state, optimizer, mesh)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    step = functools.partial(train_step, apply=model.for_search(), objective=whole.loss, optimizer=optimizer, seed=seed)
    return jitted_step(step, shardings, mesh), abstract


def global_batch(local: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """This process's rows as its part of the global batch, on the devices."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in local.items()}
