import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxret.train.optimizers import adamw, matrices

STEPS, PEAK, FINAL, B1, B2, EPSILON, DECAY, CLIP = 20, 0.1, 0.2, 0.8, 0.9, 1e-3, 0.3, 1.0


def params():
    random = np.random.default_rng(0)
    tree = {
        "body": {"kernel": random.normal(size=(3, 2)), "scale": random.normal(size=3)},
        "embedding": random.normal(size=(4, 3)),
    }
    return tree | {"head": {"bias": random.normal(size=1)}}


def learning_rate(step):
    """A tenth of the steps up to the peak, then half a cosine down to its share."""
    if step < 2:
        return PEAK * step / 2
    return PEAK * (FINAL + (1 - FINAL) * 0.5 * (1 + np.cos(np.pi * (step - 2) / (STEPS - 2))))


def loop(gradients):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) on flat arrays in float64."""
    x = {jax.tree_util.keystr(path): value for path, value in jax.tree_util.tree_leaves_with_path(params())}
    m, v = ({name: np.zeros_like(value) for name, value in x.items()} for _ in range(2))
    for step, tree in enumerate(gradients):
        g = {jax.tree_util.keystr(path): value for path, value in jax.tree_util.tree_leaves_with_path(tree)}
        norm = np.sqrt(sum(np.sum(value**2) for value in g.values()))
        for name in x:
            clipped = g[name] / max(norm, CLIP)
            m[name] = B1 * m[name] + (1 - B1) * clipped
            v[name] = B2 * v[name] + (1 - B2) * clipped**2
            update = m[name] / (1 - B1 ** (step + 1)) / (np.sqrt(v[name] / (1 - B2 ** (step + 1))) + EPSILON)
            decayed = 0.0 if "scale" in name or "bias" in name else DECAY
            x[name] = x[name] - learning_rate(step) * (update + decayed * x[name])
    return x


def test_updates_equal_a_loop():
    random = np.random.default_rng(1)
    gradients = [
        jax.tree.map(lambda x, s=s: random.normal(size=x.shape) * s, params()) for s in (0.01, 3.0, 0.1, 0.2, 1.0) * 4
    ]
    optimizer = adamw(
        STEPS, learning_rate=PEAK, final=FINAL, b1=B1, b2=B2, epsilon=EPSILON, weight_decay=DECAY, clip=CLIP
    )
    x = jax.tree.map(jnp.float32, params())
    state, update = optimizer.init(x), jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(jax.tree.map(jnp.float32, gradient), state, x)
        x = optax.apply_updates(x, updates)
    for path, value in jax.tree_util.tree_leaves_with_path(x):
        np.testing.assert_allclose(value, loop(gradients)[jax.tree_util.keystr(path)], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_runs_have_a_schedule(steps):
    optimizer = adamw(steps, learning_rate=0.1)
    x, update = {"kernel": jnp.ones((2, 2))}, jax.jit(optimizer.update)
    state = optimizer.init(x)
    for _ in range(steps):
        updates, state = update(x, state, x)
        assert all(np.all(np.isfinite(u)) for u in jax.tree.leaves(updates))


def test_matrices_are_kernels_and_embeddings(model):
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): value
        for path, value in jax.tree_util.tree_leaves_with_path(matrices(model.abstract_params()))
    }
    assert (
        found["encoder/token_embedding"]
        and found["encoder/layers/mlp/up/kernel"]
        and found["dense/projection_0/kernel"]
    )
    assert not any(value for name, value in found.items() if name.endswith(("scale", "bias")))
    assert all(value for name, value in found.items() if name.endswith(("kernel", "embedding")))
    assert "lexical/weight/bias" in found and "encoder/layers/attention_norm/scale" in found
