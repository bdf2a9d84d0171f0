import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.contrastive import info_nce

B, C = 4, 6


def loop(scores, positive, temperature, where=None):
    losses = []
    for row in range(len(scores)):
        kept = [c for c in range(scores.shape[1]) if where is None or where[row, c] or c == positive[row]]
        total = sum(np.exp((scores[row, c] - scores[row, positive[row]]) / temperature) for c in kept)
        losses.append(np.log(total))
    return np.array(losses)


def example():
    random = np.random.default_rng(0)
    return random.normal(size=(B, C)), np.array([3, 0, 5, 3]), random.random((B, C)) < 0.5


@pytest.mark.parametrize("temperature", [0.05, 1.0, 7.0])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_a_loop(temperature, masked):
    scores, positive, where = example()
    where = where if masked else None
    loss = info_nce(
        jnp.float32(scores), jnp.asarray(positive), temperature, where=None if where is None else jnp.asarray(where)
    )
    assert loss.shape == (B,)
    np.testing.assert_allclose(loss, loop(scores, positive, temperature, where), rtol=2e-5, atol=1e-6)


def test_a_masked_column_might_as_well_be_deleted():
    scores, positive, _ = example()
    positive = np.where(positive == 1, 0, positive)
    where = np.ones((B, C), bool)
    where[:, 1] = False
    scores[:, 1] = 1e30
    masked = info_nce(jnp.float32(scores), jnp.asarray(positive), 0.5, where=jnp.asarray(where))
    deleted = info_nce(
        jnp.float32(np.delete(scores, 1, axis=1)), jnp.asarray(np.where(positive > 1, positive - 1, positive)), 0.5
    )
    np.testing.assert_allclose(masked, deleted, rtol=1e-6)


def test_the_positive_takes_part_even_where_the_mask_leaves_it_out():
    scores, positive, _ = example()
    loss = info_nce(jnp.float32(scores), jnp.asarray(positive), 1.0, where=jnp.zeros((B, C), bool))
    np.testing.assert_allclose(loss, np.zeros(B), atol=1e-6)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures_are_finite(temperature):
    scores, positive, where = example()

    def total(scores):
        return jnp.sum(info_nce(scores, jnp.asarray(positive), temperature, where=jnp.asarray(where)))

    value, gradient = jax.value_and_grad(total)(jnp.float32(scores * 30))
    assert np.isfinite(value) and np.all(np.isfinite(gradient))
    expected = [
        np.logaddexp.reduce(
            [(scores[r, c] - scores[r, p]) * 30 / temperature for c in range(C) if where[r, c] or c == p]
        )
        for r, p in enumerate(positive)
    ]
    np.testing.assert_allclose(value, np.sum(expected), rtol=1e-4)


def test_gradient_equals_finite_differences():
    scores, positive, where = example()
    weight = np.array([1.0, -2.0, 0.5, 3.0])
    gradient = jax.grad(lambda x: jnp.sum(weight * info_nce(x, jnp.asarray(positive), 0.3, where=jnp.asarray(where))))(
        jnp.float32(scores)
    )
    for place in np.ndindex(B, C):
        up, down = scores.copy(), scores.copy()
        up[place] += 1e-6
        down[place] -= 1e-6
        difference = np.sum(weight * (loop(up, positive, 0.3, where) - loop(down, positive, 0.3, where))) / 2e-6
        np.testing.assert_allclose(gradient[place], difference, rtol=1e-3, atol=1e-4)


def test_bfloat16_scores_give_a_float32_loss():
    scores, positive, _ = example()
    assert info_nce(jnp.bfloat16(scores), jnp.asarray(positive), 1.0).dtype == jnp.float32
