"""Attention over a mesh equals attention on one device, and devices that hold whole rows and heads need not talk."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.errors import InputError
from jaxret.nn.attention import plain_attention
from jaxret.runtime.attention import CHOICES, attention_named
from jaxret.runtime.mesh import BATCH, device_mesh

MESHES = [(8, 1, 1), (1, 1, 8), (2, 2, 2), (1, 2, 4), (4, 2, 1)]


def inputs(rows=8, heads=8, groups=2, length=12, width=4):
    random = np.random.default_rng(0)
    q = random.normal(size=(rows, heads, length, width))
    k, v = random.normal(size=(2, rows, groups, length, width))
    return *(jnp.asarray(x, jnp.float32) for x in (q, k, v)), jnp.asarray(random.random((rows, length)) < 0.8)


def program(attention, mesh, shardings, **shape):
    """The sum over kept rows and its gradients, with the mesh in its context."""

    def loss(q, k, v, mask):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            mixed = attention(q, k, v, mask, **shape)
        return jnp.sum(jnp.sin(jnp.where(mask[:, None, :, None], mixed, 0.0)))

    both = jax.value_and_grad(loss, argnums=(0, 1, 2))
    return jax.jit(both, in_shardings=tuple(shardings), out_shardings=(None, tuple(shardings[:3])))


def check(attention, shape, arrays, **pattern):
    one, mesh = device_mesh((1, 1, 1), jax.devices()[:1]), device_mesh(shape)
    wanted = program(plain_attention, one, [NamedSharding(one, PartitionSpec())] * 4, **pattern)(*arrays)
    found = program(attention, mesh, [NamedSharding(mesh, PartitionSpec())] * 4, **pattern)(*arrays)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("shape", MESHES, ids=str)
@pytest.mark.parametrize(("causal", "window"), [(False, 0), (True, 3)])
@pytest.mark.parametrize("name", ["auto", "xla"])
def test_a_mesh_changes_nothing(name, shape, causal, window):
    check(attention_named(name), shape, inputs(), causal=causal, window=window)


def test_a_mesh_changes_nothing_for_the_kernel(monkeypatch):
    monkeypatch.setitem(CHOICES, "splash", partial(CHOICES["splash"], interpret=True))
    check(attention_named.__wrapped__("splash"), (2, 2, 2), inputs(length=130), causal=True)


@pytest.mark.parametrize(("length", "heads", "width"), [(130, 4, 64), (64, 8, 32), (256, 2, 128)])
def test_the_kernel_for_short_texts_is_plain_attention(monkeypatch, length, heads, width):
    monkeypatch.setitem(CHOICES, "short", partial(CHOICES["short"], interpret=True))
    arrays = inputs(rows=2, heads=heads, groups=heads, length=length, width=width)
    mask = arrays[3].at[0].set(False)  # and a text without a token
    check(attention_named.__wrapped__("short"), (8, 1, 1), (*arrays[:3], mask))


def test_the_kernel_for_short_texts_on_a_mesh(monkeypatch):
    monkeypatch.setitem(CHOICES, "short", partial(CHOICES["short"], interpret=True))
    check(attention_named.__wrapped__("short"), (2, 2, 2), inputs(rows=4, heads=4, groups=4, length=128, width=64))


def test_the_kernel_for_short_texts_names_what_it_cannot_do():
    same = inputs(groups=8, width=16)
    for arrays, pattern in [(inputs(heads=4, width=4, groups=4), {}), (same, {"causal": True}), (same, {"window": 3})]:
        with pytest.raises(InputError, match="attention"):
            CHOICES["short"](*arrays, **pattern)


@pytest.mark.parametrize("sizes", [(3, 8, 2), (8, 6, 3), (8, 8, 8), (8, 8, 1), (5, 3, 1)], ids=str)
def test_what_does_not_divide_stays_whole(sizes):
    check(attention_named("plain"), (1, 2, 4), inputs(*sizes))


@pytest.mark.parametrize("groups", [8, 4])
def test_devices_do_not_talk(groups):
    mesh = device_mesh((2, 1, 4))
    heads, rows = (NamedSharding(mesh, PartitionSpec(BATCH, *rest)) for rest in (("tensor",), ()))
    text = program(attention_named("plain"), mesh, [heads, heads, heads, rows]).lower(*inputs(groups=groups)).compile()
    calls = re.findall(r"= (\S+) (all-\w+|reduce-scatter|collective-permute)", text.as_text())
    assert set(calls) == {("f32[]", "all-reduce")}, "only the loss itself is summed over devices"


def test_an_unknown_name_is_an_input_error():
    with pytest.raises(InputError, match=r"attention: unknown 'flash'.*auto, plain, xla, cudnn, splash"):
        attention_named("flash")
