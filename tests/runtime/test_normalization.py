"""The TPU's kernel is the plain normalisation, alone and on a mesh; so are the gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from jaxret.ops.normalization import layer_norm, rms_norm
from jaxret.runtime import normalization
from jaxret.runtime.mesh import batch_sharding, device_mesh

PLAIN = {"layer": layer_norm, "rms": rms_norm}


def inputs(rows=6, length=16, width=128, dtype="float32"):
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, length, width)) * 3 + random.normal(size=(rows, length, 1))
    scale, bias, g = random.normal(size=(width,)) + 1, random.normal(size=(width,)), random.normal(size=x.shape)
    return jnp.asarray(x, dtype), jnp.asarray(scale), jnp.asarray(bias), jnp.asarray(g, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kind", PLAIN)
def test_value_and_gradients(kind, biased, dtype):
    x, scale, bias, g = inputs(dtype=dtype)
    wide = x.astype(jnp.float32), scale, bias if biased else None
    value, pull = jax.vjp(lambda *a: PLAIN[kind](*a, 1e-5), *wide)
    wanted = (value, *pull(g.astype(jnp.float32)))
    value, pull = jax.vjp(lambda *a: normalization.kernel_norm(*a, kind, 1e-5, True), x, *wide[1:])
    found = (value, *pull(g))
    assert value.dtype == x.dtype
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        scale_ = 1e-5 if dtype == "float32" else 1e-2
        np.testing.assert_allclose(np.float32(ours), theirs, rtol=scale_, atol=scale_ * float(jnp.abs(theirs).max()))


def test_blocks_are_added_up(monkeypatch):
    x, scale, bias, g = inputs(rows=8, length=32)
    _, pull = jax.vjp(lambda *a: normalization.kernel_norm(*a, "layer", 1e-5, True), x, scale, bias)
    whole = pull(g)
    monkeypatch.setattr(normalization, "BLOCK_BYTES", 4 * 128 * 64)
    assert normalization._block(256, 128) == 64
    _, pull = jax.vjp(lambda *a: normalization.kernel_norm(*a, "layer", 1e-5, True), x, scale, bias)
    for ours, theirs in zip(pull(g), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 2, 4)], ids=str)
def test_a_mesh_changes_nothing(shape):
    x, scale, bias, g = inputs(rows=8, dtype="bfloat16")

    def loss(x, scale, bias):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jnp.sum((normalization.normalization("layer", x, scale, bias, 1e-5) * g).astype(jnp.float32))

    mesh = device_mesh(shape)
    rows, whole = batch_sharding(mesh), NamedSharding(mesh, jax.sharding.PartitionSpec())
    found = jax.jit(jax.grad(loss, (0, 1, 2)), in_shardings=(rows, whole, whole))(x, scale, bias)
    mesh = device_mesh((1, 1, 1), jax.devices()[:1])
    for ours, theirs in zip(found, jax.jit(jax.grad(loss, (0, 1, 2)))(x, scale, bias), strict=True):
        np.testing.assert_allclose(np.float32(ours), np.float32(theirs), rtol=1e-2, atol=1e-2)
