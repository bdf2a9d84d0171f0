import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.heads import DenseHead, LexicalHead, MultiVectorHead


def example():
    random = np.random.default_rng(0)
    mask = random.random((3, 5)) < 0.6
    mask[:, 0] = True
    return random.normal(size=(3, 5, 4)), mask


def applied(module, random_params, *inputs):
    inputs = tuple(jnp.asarray(x, jnp.float32) if x.dtype == np.float64 else jnp.asarray(x) for x in inputs)
    params = random_params(nn.meta.unbox(module.init(jax.random.key(0), *inputs))["params"])
    return np.asarray(module.apply({"params": params}, *inputs)), jax.tree.map(np.float64, params)


def normalised(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_dense_head(random_params, pooling):
    x, mask = example()
    vectors, params = applied(DenseHead(6, pooling), random_params, x, mask)
    pooled = (
        x[:, 0] if pooling == "cls" else np.stack([row[kept].mean(axis=0) for row, kept in zip(x, mask, strict=True)])
    )
    np.testing.assert_allclose(vectors, normalised(pooled @ params["projection"]["kernel"]), rtol=1e-4, atol=1e-5)


def test_lexical_head(random_params):
    x, mask = example()
    weights, params = applied(LexicalHead(), random_params, x * 3, mask)
    expected = np.maximum(x * 3 @ params["weight"]["kernel"][:, 0] + params["bias"][0], 0) * mask
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-5)
    assert np.any(weights[mask] == 0) and np.any(weights[mask] > 0), "the example must reach both sides of the ReLU"


def test_the_lexical_weights_of_an_untrained_head_are_alive():
    x = jnp.asarray(example()[0], jnp.float32)
    module = LexicalHead()
    weights = module.apply(
        nn.meta.unbox(module.init(jax.random.key(0), x, jnp.ones((3, 5), bool))), x, jnp.ones((3, 5), bool)
    )
    assert np.mean(np.asarray(weights) > 0) > 0.5


def test_multi_vector_head(random_params):
    x, _ = example()
    vectors, params = applied(MultiVectorHead(6), random_params, x)
    np.testing.assert_allclose(vectors, normalised(x @ params["projection"]["kernel"]), rtol=1e-4, atol=1e-5)
