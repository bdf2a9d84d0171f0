import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxret.errors import InputError
from jaxret.train.averages import averaged, used_params
from jaxret.train.optimizers import adamw

STEPS = 7
PLAIN = functools.partial(adamw, learning_rate=0.1, warmup=0.0)
ONCE = {"optimizer": PLAIN, "decay": 0.5}


def params():
    random = np.random.default_rng(0)
    return {"kernel": jnp.asarray(random.normal(size=(3, 2)), jnp.float32), "bias": jnp.ones(2, jnp.bfloat16)}


def trained(optimizer):
    """The parameters after each step, those to be used after each step."""
    x = params()
    state, update, used = optimizer.init(x), jax.jit(optimizer.update), jax.jit(used_params)
    every, uses = [x], [used(x, state)]
    for number in range(STEPS):
        gradient = jax.tree.map(lambda x, n=number: jnp.cos(n + x), x)
        updates, state = update(gradient, state, x)
        x = optax.apply_updates(x, updates)
        every.append(x)
        uses.append(used(x, state))
    return every, uses


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("every", [1, 3])
def test_equals_a_loop(every, warmup):
    found, uses = trained(averaged(STEPS, optimizer=PLAIN, decay=0.4, every=every, warmup=warmup))
    jax.tree.map(np.testing.assert_array_equal, found, trained(PLAIN(STEPS))[0])
    average = np.float64(found[0]["kernel"])
    np.testing.assert_array_equal(uses[0]["kernel"], found[0]["kernel"])
    for step in range(1, STEPS + 1):
        if step % every == 0:
            n = step // every - 1
            decay = min(0.4, (1 + n) / (10 + n)) if warmup else 0.4
            average = decay * average + (1 - decay) * np.float64(found[step]["kernel"])
        np.testing.assert_allclose(uses[step]["kernel"], average, rtol=1e-6, atol=1e-7)


def test_averages_are_float32_and_used_in_the_parameters_dtype():
    optimizer = averaged(STEPS, optimizer=PLAIN, decay=0.9)
    state = optimizer.init(params())
    assert {x.dtype for x in jax.tree.leaves(state.average)} == {jnp.dtype("float32")}
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), jax.eval_shape(used_params, params(), state))
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), params())


def test_what_does_not_change_keeps_its_average():
    optimizer = averaged(STEPS, optimizer=lambda _: optax.sgd(0.0), decay=0.999, warmup=False)
    _, uses = trained(optimizer)
    jax.tree.map(np.testing.assert_array_equal, uses[-1], params())


def test_frozen_parameters_have_no_average():
    optimizer = averaged(STEPS, optimizer=functools.partial(PLAIN, frozen=("bias",)), decay=0.5)
    assert [x.shape for x in jax.tree.leaves(optimizer.init(params()).average)] == [(3, 2)]
    found, uses = trained(optimizer)
    np.testing.assert_array_equal(uses[-1]["bias"], params()["bias"])
    assert not np.allclose(uses[-1]["kernel"], found[-1]["kernel"], atol=1e-3)


def test_without_an_average_the_parameters_are_used():
    x = params()
    jax.tree.map(np.testing.assert_array_equal, used_params(x, PLAIN(STEPS).init(x)), x)


def test_two_averages_are_refused():
    for inner in (functools.partial(adamw, learning_rate=0.1, schedule_free=True), functools.partial(averaged, **ONCE)):
        with pytest.raises(InputError, match=r"averaged.optimizer: it keeps an average of its own"):
            averaged(STEPS, optimizer=inner, decay=0.5).init(params())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"decay": 1.0}, "averaged.decay: 1.0 is no share"), ({"decay": 0.9, "every": 0}, "averaged.every: 0 is not")],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        averaged(STEPS, optimizer=PLAIN, **settings)
