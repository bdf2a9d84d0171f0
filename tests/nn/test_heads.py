import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.heads import DenseHead, LexicalHead, MultiVectorHead, Projection


def example():
    random = np.random.default_rng(0)
    mask = random.random((3, 5)) < 0.6
    mask[:, 0] = True
    return random.normal(size=(3, 5, 4)), mask


def applied(module, random_params, *inputs):
    inputs = tuple(jnp.asarray(x, jnp.float32) if x.dtype == np.float64 else jnp.asarray(x) for x in inputs)
    params = random_params(nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs))["params"])
    return np.asarray(jax.jit(module.apply)({"params": params}, *inputs)), jax.tree.map(np.float64, params)


def normalised(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_dense_head(random_params, pooling):
    x, mask = example()
    vectors, params = applied(DenseHead((pooling,), (Projection(6),)), random_params, x, mask)
    pooled = (
        x[:, 0] if pooling == "cls" else np.stack([row[kept].mean(axis=0) for row, kept in zip(x, mask, strict=True)])
    )
    np.testing.assert_allclose(vectors, normalised(pooled @ params["projection_0"]["kernel"]), rtol=1e-4, atol=1e-5)


def test_lexical_head(random_params):
    x, mask = example()
    weights, params = applied(LexicalHead(), random_params, x * 3, mask)
    expected = np.maximum(x * 3 @ params["weight"]["kernel"][:, 0] + params["weight"]["bias"][0], 0) * mask
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
    vectors, params = applied(MultiVectorHead((Projection(6),)), random_params, x)
    np.testing.assert_allclose(vectors, normalised(x @ params["projection_0"]["kernel"]), rtol=1e-4, atol=1e-5)


def test_dense_head_through_two_layers_cut_and_not_normalised(random_params):
    x, mask = example()
    layers = (Projection(6, use_bias=True, activation="tanh"), Projection(5))
    vectors, params = applied(DenseHead(("cls",), layers, truncate=3, normalize=False), random_params, x, mask)
    first = params["projection_0"]
    inner = np.tanh(x[:, 0] @ first["kernel"] + first["bias"])
    np.testing.assert_allclose(vectors, (inner @ params["projection_1"]["kernel"])[:, :3], rtol=1e-4, atol=1e-5)
    cut, _ = applied(DenseHead(("cls",), layers, truncate=3), random_params, x, mask)
    np.testing.assert_allclose(cut, normalised(vectors), rtol=1e-4, atol=1e-5)


def test_several_poolings_stand_one_after_the_other(random_params):
    x, mask = example()
    vectors, params = applied(DenseHead(("cls", "mean"), (Projection(6),), normalize=False), random_params, x, mask)
    means = np.stack([row[kept].mean(axis=0) for row, kept in zip(x, mask, strict=True)])
    expected = np.concatenate([x[:, 0], means], axis=1) @ params["projection_0"]["kernel"]
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


def test_residuals_add_what_came_in(random_params):
    x, mask = example()
    layers = (Projection(6, activation="tanh", residual=True), Projection(6, use_bias=True, residual=True))
    vectors, params = applied(DenseHead(("cls",), layers, normalize=False), random_params, x, mask)
    inner = np.tanh(x[:, 0] @ params["projection_0"]["kernel"]) + x[:, 0] @ params["residual_0"]["kernel"]
    expected = inner @ params["projection_1"]["kernel"] + params["projection_1"]["bias"] + inner
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
    assert set(params) == {"projection_0", "residual_0", "projection_1"}
