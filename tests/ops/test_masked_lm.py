from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.masked_lm import masked_lm, masked_lm_distillation
from tests.ops.losses import assert_equals_loop, finite, value_and_gradients

B, L, V = 3, 4, 5


def example():
    random = np.random.default_rng(0)
    where = random.random((B, L)) < 0.5
    where[0], where[1] = True, False
    logits, teacher = random.normal(size=(2, B, L, V))
    return logits, teacher, random.integers(0, V, (B, L)).astype(np.int32), where


def shares(x):
    return np.exp(x) / np.sum(np.exp(x))


def label_loop(logits, token_ids, where):
    losses = np.zeros((B, L))
    for place in zip(*np.nonzero(where), strict=True):
        losses[place] = -np.log(shares(logits[place])[token_ids[place]])
    return losses


def teacher_loop(logits, teacher, where, temperature):
    losses = np.zeros((B, L))
    for place in zip(*np.nonzero(where), strict=True):
        pairs = zip(shares(teacher[place] / temperature), shares(logits[place] / temperature), strict=True)
        losses[place] = -sum(p * np.log(q) for p, q in pairs)
    return losses


@pytest.mark.parametrize("masked", [False, True])
def test_equals_a_loop(masked):
    logits, teacher, token_ids, where = example()
    mask, kept = (jnp.asarray(where), where) if masked else (None, np.ones_like(where))
    assert_equals_loop(
        lambda x: masked_lm(x, jnp.asarray(token_ids), where=mask), lambda x: label_loop(x, token_ids, kept), logits
    )
    assert_equals_loop(
        lambda x, t: masked_lm_distillation(x, t, 2.0, where=mask),
        lambda x, t: teacher_loop(x, t, kept, 2.0),
        *(logits, teacher),
    )


def test_masked_positions_leave_no_trace():
    logits, teacher, token_ids, where = example()
    covered, other = (np.float32(np.where(where[:, :, None], x, np.nan)) for x in (logits, teacher))
    unlabelled = jnp.asarray(np.where(where, token_ids, -100))  # as some collators mark what is not predicted
    mask = jnp.asarray(where)
    value, (gradient,) = value_and_gradients(lambda x: masked_lm(x, unlabelled, where=mask), [covered])
    np.testing.assert_allclose(value, label_loop(logits, token_ids, where), rtol=1e-5, atol=1e-6)
    distilled, gradients = value_and_gradients(partial(masked_lm_distillation, where=mask), [covered, other])
    np.testing.assert_allclose(distilled, teacher_loop(logits, teacher, where, 1.0), rtol=1e-5, atol=1e-6)
    for slope in (gradient, *gradients):
        assert np.all(np.isfinite(slope))
        np.testing.assert_array_equal(slope[~where], 0.0)


def test_a_teacher_that_is_certain_is_a_label():
    logits, _, token_ids, where = example()
    certain = np.float32(1e3 * np.eye(V)[token_ids])
    soft = jax.jit(partial(masked_lm_distillation, where=jnp.asarray(where)))(np.float32(logits), certain)
    np.testing.assert_allclose(soft, label_loop(logits, token_ids, where), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures_and_ties_are_finite(temperature):
    logits, teacher, token_ids, _ = example()
    finite(lambda x, t: masked_lm_distillation(x, t, temperature), 30 * logits, teacher)
    finite(lambda x: masked_lm(x, jnp.asarray(token_ids)), logits / temperature)
    ties = finite(lambda x: masked_lm(x, jnp.asarray(token_ids)), np.ones((B, L, V)))
    np.testing.assert_allclose(ties, np.log(V), rtol=1e-6)
