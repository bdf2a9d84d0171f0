import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.context_head import ContextHead, HeadStatistics, Statistics

B, D, HIDDEN, WIDTH = 6, 4, 5, 3


@pytest.fixture(scope="module")
def example(random_params):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(B, D)) + 2, jnp.float32)
    running = HeadStatistics(
        *(
            Statistics(
                jnp.asarray(random.normal(size=n), jnp.float32), jnp.asarray(random.random(n) + 0.5, jnp.float32)
            )
            for n in (HIDDEN, WIDTH)
        )
    )
    init = ContextHead(HIDDEN, WIDTH).init
    params = jax.eval_shape(init, jax.random.key(0), x, running, jnp.array(True))["params"]
    return x, running, random_params(nn.meta.unbox(params))


def loop(x, running, params, by_batch, normalize):
    x, used = np.asarray(x, np.float64), []

    def normalised(y, by):
        used.append((y.mean(0), y.var(0)))
        mean, variance = used[-1] if by_batch else (np.asarray(by.mean), np.asarray(by.variance))
        return (y - mean) / np.sqrt(variance + 1e-5) if normalize else y

    y = normalised(x @ np.asarray(params["first"]["kernel"]), running.hidden)
    y = np.maximum(y * np.asarray(params["scale"]) + np.asarray(params["bias"]), 0)
    y = normalised(y @ np.asarray(params["second"]["kernel"]), running.output)
    return y / np.linalg.norm(y, axis=1, keepdims=True), used


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("by_batch", [True, False])
def test_vectors_and_statistics(example, by_batch, normalize):
    x, running, params = example
    head = ContextHead(HIDDEN, WIDTH, normalize)
    vectors, found = jax.jit(head.apply)({"params": params}, x, running, jnp.array(by_batch))
    expected, used = loop(x, running, params, by_batch, normalize)
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
    for mine, (mean, variance) in zip(found, used, strict=True):
        np.testing.assert_allclose(mine.mean, mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mine.variance, variance, rtol=1e-4, atol=1e-5)


def test_a_row_feels_the_others_through_the_batchs_statistics_alone(example):
    x, running, params = example

    def first(x, by_batch):
        return jnp.sum(ContextHead(HIDDEN, WIDTH).apply({"params": params}, x, running, by_batch)[0][0] ** 3)

    by_batch, by_running = (jax.jit(jax.grad(first))(x, jnp.array(turn)) for turn in (True, False))
    assert np.all(np.any(np.abs(by_batch) > 1e-6, axis=1))
    assert np.any(by_running[0]) and not np.any(by_running[1:])
