"""Every implementation of attention against a plain loop, and against each other under gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.attention import fused_attention, local_attention, plain_attention
from jaxret.runtime.attention import automatic_attention, splash_attention

B, H, G, W = 2, 4, 2, 8
IMPLEMENTATIONS = {
    "plain": plain_attention,
    "xla": fused_attention,
    "auto": automatic_attention,
    "splash": partial(splash_attention, interpret=True),
}
PATTERNS = [(False, 0), (True, 0), (False, 3), (True, 3), (False, 1), (True, 6)]


def inputs(length, groups=G, seed=0):
    random = np.random.default_rng(seed)
    q = random.normal(size=(B, H, length, W))
    k, v = random.normal(size=(2, B, groups, length, W))
    mask = np.ones((B, length), bool)
    mask[0, length - length // 3 :] = False
    mask[1, : length // 4] = False
    return *(jnp.asarray(x, jnp.float32) for x in (q, k, v)), jnp.asarray(mask)


def loop(q, k, v, mask, causal, window):
    """One query of one head at a time."""
    out = np.zeros(q.shape)
    for b in range(B):
        for h in range(H):
            g = h // (H // k.shape[1])
            for i in range(q.shape[2]):
                kept = [
                    j
                    for j in range(q.shape[2])
                    if mask[b, j] and (not causal or j <= i) and (not window or abs(i - j) <= window)
                ]
                if not kept:
                    continue
                scores = np.array([float(np.dot(q[b, h, i], k[b, g, j])) for j in kept]) / np.sqrt(W)
                weights = np.exp(scores - scores.max())
                out[b, h, i] = weights @ np.array([v[b, g, j] for j in kept]) / weights.sum()
    return out


GROUPINGS = [(name, groups) for name in IMPLEMENTATIONS for groups in ((G,) if name == "splash" else (1, 2, 4))]


@pytest.mark.parametrize(("name", "groups"), GROUPINGS)
@pytest.mark.parametrize(("causal", "window"), PATTERNS)
def test_equals_a_loop(name, groups, causal, window):
    q, k, v, mask = inputs(13, groups)
    wanted = loop(*(np.asarray(x, np.float64) for x in (q, k, v)), np.asarray(mask), causal, window)
    found = jax.jit(partial(IMPLEMENTATIONS[name], causal=causal, window=window))(q, k, v, mask)
    kept = np.asarray(mask)
    np.testing.assert_allclose(np.moveaxis(found, 1, 2)[kept], np.moveaxis(wanted, 1, 2)[kept], atol=2e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 4, 5, 8, 16, 17])
@pytest.mark.parametrize("window", [1, 4, 5])
def test_blocks_at_every_edge(causal, length, window):
    q, k, v, _ = inputs(length)
    mask = jnp.asarray(np.random.default_rng(length).random((B, length)) > 0.2)
    wanted = loop(*(np.asarray(x, np.float64) for x in (q, k, v)), np.asarray(mask), causal, window)
    found = jax.jit(partial(local_attention, causal=causal, window=window))(q, k, v, mask)
    kept = np.asarray(mask)
    np.testing.assert_allclose(np.moveaxis(found, 1, 2)[kept], np.moveaxis(wanted, 1, 2)[kept], atol=2e-6)


@pytest.mark.parametrize(
    ("name", "groups"), [*((name, G) for name in ("plain", "xla", "splash", "local")), ("plain", H)]
)
@pytest.mark.parametrize(("causal", "window"), [(False, 0), (True, 5), (False, 2)])
def test_equal_gradients(name, groups, causal, window):
    if name == "local" and not window:
        window = 4
    q, k, v, mask = inputs(21, groups)
    factor = jnp.asarray(np.random.default_rng(1).normal(size=q.shape), jnp.float32) * mask[:, None, :, None]

    def loss(attention, *arrays):
        return jnp.sum(factor * attention(*arrays, mask, causal=causal, window=window))

    chosen = local_attention if name == "local" else IMPLEMENTATIONS[name]
    banded = partial(_banded, causal=causal, window=window)
    wanted = jax.jit(jax.grad(lambda *arrays: jnp.sum(factor * banded(*arrays, mask)), argnums=(0, 1, 2)))(q, k, v)
    found = jax.jit(jax.grad(partial(loss, chosen), argnums=(0, 1, 2)))(q, k, v)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_gradients_in_bfloat16_are_those_of_float32_but_for_rounding():
    *exact, mask = inputs(21)
    factor = jnp.asarray(np.random.default_rng(1).normal(size=exact[0].shape), jnp.float32) * mask[:, None, :, None]

    def gradients(arrays):
        return jax.jit(jax.grad(lambda x: jnp.sum(factor * plain_attention(*x, mask))))(arrays)

    rounded = [x.astype(jnp.bfloat16) for x in exact]
    for ours, theirs in zip(gradients(rounded), gradients([x.astype(jnp.float32) for x in rounded]), strict=True):
        assert ours.dtype == jnp.bfloat16
        error = np.linalg.norm(np.float32(ours) - theirs) / np.linalg.norm(theirs)
        assert error < 0.01


def test_a_text_without_tokens_has_no_gradient():
    q, k, v, mask = inputs(8)
    gradients = jax.jit(jax.grad(lambda x: jnp.sum(plain_attention(*x, mask.at[0].set(False)))))((q, k, v))
    assert all(not np.any(x[0]) and np.any(x[1]) for x in gradients)


def _banded(q, k, v, mask, *, causal, window):
    """Softmax over a written-out band."""
    length = q.shape[2]
    distance = jnp.arange(length)[None, :] - jnp.arange(length)[:, None]
    band = (distance <= 0 if causal else distance == distance) & ((jnp.abs(distance) <= window) if window else True)
    k, v = (jnp.repeat(x, H // x.shape[1], axis=1) for x in (k, v))
    scores = jnp.einsum("bhlw,bhmw->bhlm", q, k) / np.sqrt(W)
    scores = jnp.where(band[None, None] & mask[:, None, None, :], scores, -1e30)
    return jnp.einsum("bhlm,bhmw->bhlw", jax.nn.softmax(scores, axis=-1), v)


def test_windows_cost_in_proportion_to_the_length():
    def operations(length, window):
        shape = jax.ShapeDtypeStruct((1, 2, length, 16), jnp.float32)
        mask = jax.ShapeDtypeStruct((1, length), jnp.bool_)
        run = jax.jit(lambda q, k, v, m: plain_attention(q, k, v, m, window=window))
        compiled = run.lower(shape, shape, shape, mask).compile()
        return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes

    (short, short_memory), (long, long_memory) = operations(2048, 64), operations(8192, 64)
    assert 3.5 < long / short < 4.5
    assert long_memory < 5 * short_memory
    assert operations(8192, 0)[0] > 20 * long
