"""LoRA as a part of the objective."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxret.errors import InputError
from jaxret.nn.lora import LoraConfig, joined, merged
from jaxret.runtime.mesh import device_mesh
from jaxret.train.averages import averaged, used_params
from jaxret.train.low_rank import low_rank
from jaxret.train.objective import Objective, divided
from jaxret.train.objectives.contrastive import contrastive
from jaxret.train.optimizers import adamw
from jaxret.train.patterns import held, path_name
from jaxret.train.program import global_batch, step_program
from jaxret.train.start import begun
from jaxret.train.step import fresh_state, train_step

CONFIG = LoraConfig(("attention/(query|value)", "dense/projection_0"), rank=2, alpha=6.0)
KNOBS = dict.fromkeys(("dense", "lexical", "multi_vector"), 1.0)
PLAIN = functools.partial(contrastive, temperature=KNOBS, weight=KNOBS)
TARGETS = {"encoder/layers/attention/query", "encoder/layers/attention/value", "dense/projection_0"}
TRAINED = {"trained": ("objective",)}
SEED, KEY = 3, jax.random.key(0)


def batch(model):
    random = np.random.default_rng(0)
    query, passage = (jnp.asarray(random.integers(3, model.tokenizer.size, x), jnp.int32) for x in ((4, 6), (4, 2, 9)))
    return {"query": query, "passage": passage, "passage_key": jnp.arange(8, dtype=jnp.int32).reshape(4, 2)}


@pytest.fixture(scope="module")
def start(model, random_params):
    """The model's parameters, and those with fresh factors."""
    base = random_params(model.abstract_params())
    return base, low_rank(objective=PLAIN, lora=CONFIG).begun(model, base, SEED)[0]


@pytest.fixture(scope="module")
def trained(model, start):
    """The state after three steps."""
    optimizer = adamw(3, learning_rate=0.05, warmup=0.0, trained=("objective",))
    objective = low_rank(objective=PLAIN, lora=CONFIG)
    step = jax.jit(functools.partial(train_step, apply=model, objective=objective.loss, optimizer=optimizer, seed=SEED))
    state = fresh_state(start[1], optimizer, {})
    for _ in range(3):
        state, _ = step(state, batch(model))
    return state


def flat(tree):
    return {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def value(model, params, objective):
    return jax.jit(lambda params: objective(model, params, {}, batch(model), KEY)[0])(params)


def test_fresh_factors_change_nothing(model, start):
    base, params = start
    np.testing.assert_array_equal(
        value(model, params, low_rank(objective=PLAIN, lora=CONFIG).loss), value(model, base, PLAIN)
    )
    jax.tree.map(np.testing.assert_array_equal, divided(used_params(params, ()))[0], base)


def test_factors_alone_are_trained(start, trained):
    base, own = divided(trained.params)
    jax.tree.map(np.testing.assert_array_equal, base, start[0])
    factors = flat(own["objective"]["lora"])
    assert set(factors) == {f"{name}/lora_{side}" for name in TARGETS for side in "ab"} | {"scale"}
    before = flat(start[1]["objective"]["lora"])
    assert all(np.array_equal(x, before[name]) == (name == "scale") for name, x in factors.items())
    moments = sum(x.size for x in jax.tree.leaves(trained.optimizer) if x.ndim)
    assert moments == 2 * sum(x.size for x in factors.values() if x.ndim)


def test_used_parameters_compute_the_same(model, trained):
    used, _ = divided(jax.jit(used_params)(trained.params, trained.optimizer))
    base, _ = divided(trained.params)
    changed = {name for name, x in flat(used).items() if not np.array_equal(x, flat(base)[name])}
    assert changed == {f"{name}/kernel" for name in TARGETS}
    found = value(model, trained.params, low_rank(objective=PLAIN, lora=CONFIG).loss)
    np.testing.assert_allclose(value(model, used, PLAIN), found, rtol=1e-5)
    assert abs(found - value(model, base, PLAIN)) > 0.01


def test_gradients_are_those_of_the_merged_kernels(model, trained):
    base, own = divided(trained.params)
    factors = {name: tree for name, tree in own["objective"]["lora"].items() if name != "scale"}

    def through_kernels(factors):
        return PLAIN(model, merged(joined(base, factors), CONFIG), {}, batch(model), KEY)[0]

    def through_objective(params):
        objective = low_rank(objective=PLAIN, lora=CONFIG)
        return objective.loss(model, held(params, trained.optimizer), {}, batch(model), KEY)[0]

    expected = jax.jit(jax.grad(through_kernels))(factors)
    found = flat(jax.jit(jax.grad(through_objective))(trained.params))
    for name, gradient in flat(expected).items():
        scale = np.abs(gradient).max()
        assert scale > 0.01
        np.testing.assert_allclose(found.pop(f"objective/lora/{name}"), gradient, rtol=0, atol=1e-4 * scale)
    assert not any(np.any(x) for x in found.values())


def test_the_objectives_own_parameters_and_state_stay(model, start):
    def init(model, params, key):
        assert "lora_a" in params["dense"]["projection_0"]
        return {"head": jnp.ones(3)}, {"key": key}

    def loss(model, params, state, batch, rng):
        assert set(params["objective"]) == {"head"} and "lora_a" in params["dense"]["projection_0"]
        return jnp.sum(params["objective"]["head"]), (state, {})

    params, state = low_rank(objective=Objective(loss, init), lora=CONFIG).begun(model, start[0], SEED)
    assert set(params["objective"]) == {"head", "lora"}
    assert low_rank(objective=Objective(loss, init), lora=CONFIG).loss(model, params, state, {}, KEY)[0] == 3


def test_the_average_of_factors_is_merged(model, start):
    optimizer = averaged(2, optimizer=lambda _: adamw(2, learning_rate=0.1, trained=("objective",)), decay=0.5)
    state = optimizer.init(start[1])
    doubled = jax.tree.map(lambda x: x + 1, state.average)
    used = used_params(start[1], state.replace(average=doubled))
    factors = {name: tree for name, tree in doubled["objective"]["lora"].items() if name != "scale"}
    head = joined(start[0], factors)["dense"]["projection_0"]
    expected = head["kernel"] + (CONFIG.scale + 1) * head["lora_a"] @ head["lora_b"]
    np.testing.assert_allclose(used["dense"]["projection_0"]["kernel"], expected, rtol=1e-4)


@pytest.mark.slow
def test_a_sharded_run_equals_that_of_one_device(model):
    """With dropout in the updates alone."""
    lora = dataclasses.replace(CONFIG, dropout=0.3)

    def used(mesh):
        objective = low_rank(objective=PLAIN, lora=lora)
        optimizer = averaged(2, optimizer=lambda _: adamw(2, learning_rate=0.05, warmup=0.0, **TRAINED), decay=0.5)
        step, abstract = step_program(model, objective, optimizer, SEED, mesh)
        shardings = jax.tree.map(lambda x: x.sharding, abstract)
        state = jax.jit(lambda: begun(model, objective, optimizer, SEED, model.init(SEED)), out_shardings=shardings)()
        for _ in range(2):
            state, _ = step(state, global_batch(jax.tree.map(np.asarray, batch(model)), mesh))
        moments = optax.tree.get(state.optimizer, "mu")["objective"]["lora"]["encoder"]["layers"]["attention"]["query"]
        assert moments["lora_a"].sharding.spec == PartitionSpec(None, "fsdp", None)
        return jax.device_get(used_params(state.params, state.optimizer))

    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5),
        used(device_mesh((2, 2, 1), jax.devices()[:4])),
        used(device_mesh((1, 1, 1), jax.devices()[:1])),
    )


def test_a_target_without_a_kernel(model):
    objective = low_rank(objective=PLAIN, lora=LoraConfig(("attention/querys",)))
    with pytest.raises(InputError, match="'attention/querys' matches no kernel"):
        jax.eval_shape(lambda: objective.begun(model, model.boxed(0), 0))
