import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.ops.merging import ema_weights, slerp, task_weights


@given(st.integers(1, 12), st.floats(0, 1))
def test_ema_weights_are_those_of_the_recursion(count: int, decay: float):
    values = np.random.default_rng(count).normal(size=count)
    average = values[0]
    for value in values[1:]:
        average = decay * average + (1 - decay) * value
    weights = ema_weights(count, decay)
    assert np.dot(weights, values) == pytest.approx(average, abs=1e-12) and sum(weights) == pytest.approx(1)


def test_task_weights_add_the_differences_to_the_base():
    base, *tuned = np.random.default_rng(0).normal(size=(3, 5))
    expected = base + 0.5 * (tuned[0] - base) + 0.8 * (tuned[1] - base)
    np.testing.assert_allclose(np.tensordot(task_weights([0.5, 0.8]), [base, *tuned], 1), expected)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_walks_the_arc_at_even_speed(t: float):
    x, y, z = np.eye(3, dtype=np.float32)
    found = np.asarray(slerp({"w": jnp.asarray([x, z]).ravel()}, {"w": jnp.asarray([y, z]).ravel()}, t)["w"])
    # 60 degrees apart: x + z and y + z, each of length sqrt(2).
    assert np.linalg.norm(found) == pytest.approx(np.sqrt(2), abs=1e-6)
    cosine = found @ np.concatenate([x, z]) / 2
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))) == pytest.approx(60 * t, abs=0.05)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 2.0], [3.0, 6.0], [2.0, 4.0]),
        ([0.0, 0.0], [3.0, 6.0], [1.5, 3.0]),
        ([1.0, 0.0], [-3.0, 0.0], [-1.0, 0.0]),
        ([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_tensors_on_a_line_are_averaged(a, b, expected):
    np.testing.assert_allclose(slerp([jnp.asarray(a)], [jnp.asarray(b)], 0.5)[0], expected, atol=1e-6)


def test_slerp_of_nearly_parallel_tensors_is_accurate():
    a = np.random.default_rng(1).normal(size=1000)
    b = a + 1e-3 * np.random.default_rng(2).normal(size=1000)
    found = slerp([jnp.asarray(a, jnp.float32)], [jnp.asarray(b, jnp.float32)], 0.3)[0]
    np.testing.assert_allclose(found, 0.7 * a + 0.3 * b, atol=1e-5)
