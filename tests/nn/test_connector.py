import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.connector import Connector


@pytest.mark.parametrize("added", [0, 2])
def test_two_maps_and_trained_vectors_behind_the_text(added, random_params):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)
    mask = jnp.array([[True, True, False], [True, False, False]])
    module = Connector(6, 5, added)
    params = random_params(nn.meta.unbox(module.init(jax.random.key(0), x, mask)["params"]))
    vectors, kept = module.apply({"params": params}, x, mask)
    inner = np.maximum(x @ np.asarray(params["up"]["kernel"]) + params["up"]["bias"][None, None], 0)
    expected = inner @ np.asarray(params["down"]["kernel"]) + params["down"]["bias"][None, None]
    np.testing.assert_allclose(vectors[:, :3], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(kept, np.concatenate([mask, np.ones((2, added), bool)], axis=1))
    for row in range(2 if added else 0):
        np.testing.assert_array_equal(vectors[row, 3:], params["added"])
    assert set(params) == {"up", "down"} | ({"added"} if added else set())
