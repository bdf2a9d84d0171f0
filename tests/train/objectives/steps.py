"""Steps of a case on any mesh, by any number of processes, and what they find."""

import dataclasses
import re
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.runtime.mesh import device_mesh
from jaxret.train.objective import objective_of
from jaxret.train.program import global_batch, step_program
from jaxret.train.step import fresh_state
from tests.train.objectives import pretraining as tiny

SEED = 3
OPTIMIZER = optax.chain(optax.trace(0.0), optax.scale(-0.1))  # keeps the last gradient


class Program(NamedTuple):
    """A compiled step, the abstract state and the mesh."""

    step: Any
    abstract: Any
    mesh: Any


def program(case, shape=(1, 1, 1), chunk_rows=0):
    """The step of a case on a mesh of the first devices."""
    mesh = device_mesh(shape, jax.devices()[: np.prod(shape)])
    model = dataclasses.replace(case.model, chunk_rows=chunk_rows)
    step, abstract = step_program(model, case.objective, OPTIMIZER, SEED, mesh)
    lowered = step.lower(abstract, on_mesh(case.batches[0], mesh))
    return Program(lowered.compile(), abstract, mesh)


def on_mesh(batch, mesh):
    """A global batch, of which each process places its own rows."""
    number, count = jax.process_index(), jax.process_count()
    return global_batch({name: np.split(rows, count)[number] for name, rows in batch.items()}, mesh)


def beginning(case, random_params):
    """The state before the first step, on the host: random parameters, and what the objective loads."""
    objective = objective_of(case.objective)
    params, state = tiny.filled(case.model, objective, random_params)
    one = NamedSharding(device_mesh((1, 1, 1), jax.devices()[:1]), PartitionSpec())
    return jax.device_get(fresh_state(params, OPTIMIZER, objective.load(jax.device_put(state, one))))


def placed(state, abstract):
    """A state from the host where the abstract one lies, of which each process places its part."""

    def spread(x, like):
        return jax.make_array_from_callback(x.shape, like.sharding, lambda index: x[index])

    return jax.tree.map(spread, state, abstract)


def stepped(program, state, batches):
    """The state after a step on each batch, and the metrics of each step."""
    metrics = []
    for batch in batches:
        state, found = program.step(state, on_mesh(batch, program.mesh))
        metrics.append(found)
    return state, metrics


def named(program, state, metrics):
    """By name, what `stepped` gives: metrics, the last gradient, the objective's state; whole, in each process."""
    tree = {"metrics": metrics, "gradient": state.optimizer[0].trace, "objective": state.objective}
    if jax.process_count() > 1:
        tree = jax.jit(lambda x: x, out_shardings=NamedSharding(program.mesh, PartitionSpec()))(tree)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x) for path, x in leaves}


def assert_same(found, expected, case):
    """Metrics to 1e-5, those that both have; each array of gradient and state relative to its own largest number.

    A gradient that is 0 but for rounding is small beside the largest number of all.
    """
    for part in ("gradient", "objective"):
        names = sorted(name for name in expected if name.startswith(part))
        assert names == sorted(name for name in found if name.startswith(part))
        largest = max((np.abs(expected[name]).max() for name in names), default=0)
        for name in names:
            close = case.tolerance * np.abs(expected[name]).max()
            if part == "gradient" and case.without_effect and re.search(case.without_effect, name):
                close = case.tolerance * largest
                assert np.abs(expected[name]).max() <= close, f"{name} has an effect"
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=close, err_msg=name)
    metrics = {name for name in found.keys() & expected.keys() if name.startswith("metrics")}
    assert {"metrics/0/loss", "metrics/0/gradient_norm"} <= metrics
    for name in metrics:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
