import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxret.runtime.mesh import device_mesh
from jaxret.train.objectives.contrastive import contrastive
from jaxret.train.program import global_batch, step_program
from jaxret.train.step import fresh_state, train_step

B, N, SEED = 16, 2, 3
KNOBS = dict.fromkeys(("dense", "lexical", "multi_vector"), 1.0)
MESHES = [(1, (1, 1, 1)), (8, (8, 1, 1)), (8, (2, 2, 2))]  # more in objectives/test_equality.py
# Plain gradient descent at rate 1: the change of a parameter is its gradient.
DESCENT = optax.sgd(1.0)


def batch(model):
    random = np.random.default_rng(0)
    query = random.integers(3, model.tokenizer.size, (B, 6)).astype(np.int32)
    passage = random.integers(3, model.tokenizer.size, (B, N, 9)).astype(np.int32)
    query[:5, 4:], passage[3:9, 1, 5:] = 0, 0
    key = random.permutation(B * N).astype(np.int32).reshape(B, N)
    passage[7, 0], key[7, 0] = passage[2, 0], key[2, 0]
    return {"query": query, "passage": passage, "passage_key": key}


@functools.cache
def compiled(model, mesh, optimizer=DESCENT):
    objective = functools.partial(contrastive, temperature=KNOBS, weight=KNOBS)
    step, abstract = step_program(model, objective, optimizer, SEED, mesh)
    arrays = global_batch(batch(model), mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    return step.lower(abstract, arrays).compile(), shardings, arrays


@pytest.fixture(scope="module")
def params(model, random_params):
    return random_params(model.abstract_params())


@pytest.fixture(scope="module")
def plain(model, params):
    """Loss and gradients of the objective alone, without a mesh."""
    arrays = {name: jnp.asarray(value) for name, value in batch(model).items()}

    def loss(params):
        return contrastive(model, params, {}, arrays, jax.random.key(0), temperature=KNOBS, weight=KNOBS)

    (value, (_, metrics)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return metrics | {"loss": value, "gradient_norm": optax.tree.norm(gradients)}, gradients


@pytest.mark.parametrize(("num_devices", "shape"), MESHES)
def test_every_mesh_gives_the_same_loss_and_gradients(model, params, plain, num_devices, shape):
    program, shardings, arrays = compiled(model, device_mesh(shape, jax.devices()[:num_devices]))
    copy = jax.tree.map(jnp.array, params)
    state, metrics = program(jax.device_put(fresh_state(copy, DESCENT, {}), shardings), arrays)
    assert metrics.keys() == plain[0].keys() | {"skipped_steps", "skipped_in_a_row"}
    for name in plain[0]:
        np.testing.assert_allclose(metrics[name], plain[0][name], rtol=1e-5, atol=1e-5, err_msg=name)
    gradients = jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), params, state.params)
    assert all(np.any(np.abs(g) > 1e-4) for g in jax.tree.leaves(gradients)), "a parameter without gradient"
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max()), gradients, plain[1]
    )


def test_the_data_parallel_step_communicates_in_loops_over_layers_only(model):
    text = compiled(model, device_mesh((8, 1, 1)))[0].as_text()
    collective = re.compile(r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
    inside, at_top, entry = [], [], False
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            entry = line.startswith("ENTRY")
        if found := collective.search(line):
            (at_top if entry else inside).append((found[1], line))
    # One sum of the layers' gradients for each side; MaxSim's loops over documents have none.
    assert [name for name, _ in inside] == ["all-reduce"] * 2
    assert all("attention" in line for _, line in inside)
    names = [name for name, _ in at_top]
    assert names.count("reduce-scatter") == 3, "one for each head's documents"
    assert set(names) == {"all-gather", "all-reduce", "reduce-scatter"}


def test_moments_lie_where_their_parameters_lie(model):
    _, abstract = step_program(model, contrastive, optax.adam(1e-3), SEED, device_mesh((2, 2, 2)))
    for moments in (abstract.optimizer[0].mu, abstract.optimizer[0].nu):
        jax.tree.map(
            lambda m, p: m.sharding.is_equivalent_to(p.sharding, m.ndim) or pytest.fail(), moments, abstract.params
        )
    assert abstract.step.sharding.is_fully_replicated


def test_randomness_depends_on_the_seed_and_the_step():
    def objective(apply, params, state, batch, rng):
        return jnp.sum(params["x"] * jax.random.normal(rng)), (state, {"draw": jax.random.normal(rng)})

    def draws(seed):
        step = jax.jit(functools.partial(train_step, apply=None, objective=objective, optimizer=DESCENT, seed=seed))
        state, found = fresh_state({"x": jnp.ones(())}, DESCENT, {}), []
        for number in range(3):
            assert int(state.step) == number
            state, metrics = step(state, {})
            found.append(float(metrics["draw"]))
        return found

    assert draws(0) == draws(0)
    assert len(set(draws(0) + draws(1))) == 6
