import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxret.errors import InputError
from jaxret.train.averages import used_params
from jaxret.train.optimizers import adamw

RATE, B1, B2, EPSILON, DECAY, CLIP, STEPS = 0.1, 0.8, 0.9, 1e-3, 0.3, 1.0, 20


def start():
    random = np.random.default_rng(0)
    return {"kernel": random.normal(size=(3, 2)), "bias": random.normal(size=2)}


def gradients():
    random = np.random.default_rng(1)
    sizes = (0.01, 3.0, 0.1, 0.2, 1.0) * 4
    return [jax.tree.map(lambda x, s=s: random.normal(size=x.shape) * s, start()) for s in sizes]


def loop(warmup_steps):
    """Schedule-free AdamW in float64, with all three sequences."""
    x, y, z = start(), start(), start()
    v = {name: np.zeros_like(value) for name, value in x.items()}
    total = highest = 0.0
    for step, g in enumerate(gradients()):
        norm = np.sqrt(sum(np.sum(value**2) for value in g.values()))
        rate = RATE * min(1.0, step / warmup_steps)
        highest = max(highest, rate)
        total += highest**2
        c = highest**2 / total if total else 0.0
        for name in x:
            clipped = g[name] / max(norm, CLIP)
            v[name] = B2 * v[name] + (1 - B2) * clipped**2
            direction = clipped / (np.sqrt(v[name] / (1 - B2 ** (step + 1))) + EPSILON)
            direction = direction + (DECAY if name == "kernel" else 0.0) * y[name]
            z[name] = z[name] - rate * direction
            x[name] = (1 - c) * x[name] + c * z[name]
            y[name] = (1 - B1) * z[name] + B1 * x[name]
    return x, y


def test_equals_a_loop():
    optimizer = functools.partial(adamw, schedule_free=True, warmup=0.25, b1=B1, b2=B2, epsilon=EPSILON)(
        STEPS, learning_rate=RATE, weight_decay=DECAY, clip=CLIP
    )
    y = jax.tree.map(jnp.float32, start())
    state, update = optimizer.init(y), jax.jit(optimizer.update)
    for gradient in gradients():
        updates, state = update(jax.tree.map(jnp.float32, gradient), state, y)
        y = optax.apply_updates(y, updates)
    x = used_params(y, state)
    for found, expected in zip((x, y), loop(warmup_steps=5), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    assert np.abs(np.asarray(x["kernel"]) - np.asarray(y["kernel"])).max() > 1e-3


def test_the_start_is_what_it_was():
    y = jax.tree.map(jnp.float32, start())
    state = adamw(STEPS, schedule_free=True, learning_rate=RATE).init(y)
    jax.tree.map(np.testing.assert_array_equal, used_params(y, state), y)


def test_an_average_without_share_is_refused():
    with pytest.raises(InputError, match=r"adamw.b1: 0.0 is no share"):
        adamw(STEPS, schedule_free=True, learning_rate=RATE, b1=0.0)
