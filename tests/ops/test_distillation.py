from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.distillation import (
    embedding_mse,
    ensemble_scores,
    kl_divergence,
    margin_mse,
    min_max,
    ranked_distillation,
    self_distillation,
    soft_cross_entropy,
)
from tests.ops.losses import (
    assert_equals_loop,
    assert_masked_is_deleted,
    finite,
    masked_rows,
    value_and_gradients,
)

B, N, C = 5, 4, 9
T, TEACHER_T = 0.5, 2.0


def example():
    random = np.random.default_rng(0)
    return random.normal(size=(B, N)), random.normal(size=(B, N)), masked_rows(random, (B, N))


def shares(x):
    return np.exp(x) / np.sum(np.exp(x))


def by_row(function):
    """`function(scores, teacher)` of each row's kept entries; 0 where nothing is kept."""

    def loop(scores, teacher, where):
        rows = zip(scores, teacher, where, strict=True)
        return np.array([function(s[kept], t[kept]) if kept.any() else 0.0 for s, t, kept in rows])

    return loop


def cross_entropy(s, t):
    return -sum(p * np.log(q) for p, q in zip(shares(t / TEACHER_T), shares(s / T), strict=True))


def divergence(s, t):
    return sum(p * np.log(p / q) for p, q in zip(shares(t / TEACHER_T), shares(s / T), strict=True))


def margins(s, t):
    return np.mean([((s[0] - s[i]) - (t[0] - t[i])) ** 2 for i in range(1, len(s))]) if len(s) > 1 else 0.0


LOSSES = {
    "soft_cross_entropy": (partial(soft_cross_entropy, temperature=T, teacher_temperature=TEACHER_T), cross_entropy),
    "kl_divergence": (partial(kl_divergence, temperature=T, teacher_temperature=TEACHER_T), divergence),
    "margin_mse": (margin_mse, margins),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("masked", [False, True])
def test_equals_a_loop(name, masked):
    scores, teacher, where = example()
    loss, row = LOSSES[name]
    mask = jnp.asarray(where) if masked else None
    assert_equals_loop(
        lambda s, t: loss(s, t, where=mask), lambda s, t: by_row(row)(s, t, where | (not masked)), scores, teacher
    )


@pytest.mark.parametrize("name", [*LOSSES, "self_distillation"])
def test_what_is_masked_might_as_well_be_deleted(name):
    scores, teacher, _ = example()
    assert_masked_is_deleted(LOSSES.get(name, (self_distillation,))[0], scores, teacher)


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_temperatures_and_ties_are_finite(name):
    scores, teacher, where = example()
    several = (np.concatenate([x / 1e-3, x / 1e3, np.ones((B, N))]) for x in (scores, teacher))
    finite(partial(LOSSES[name][0], where=jnp.asarray(np.tile(where, (3, 1)))), *several)


def test_the_divergence_is_the_cross_entropy_less_the_entropy_and_ends_at_the_teacher():
    scores, teacher, where = example()

    def surplus(scores, teacher):
        entropy = soft_cross_entropy(teacher, teacher, where=jnp.asarray(where))
        cross, divergence = (f(scores, teacher, where=jnp.asarray(where)) for f in (soft_cross_entropy, kl_divergence))
        return cross - divergence - entropy

    np.testing.assert_allclose(jax.jit(surplus)(np.float32(scores), np.float32(teacher)), 0.0, atol=1e-5)
    value, (gradient, _) = value_and_gradients(kl_divergence, [np.float32(teacher + 3), np.float32(teacher)])
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def scaled(row, kept, epsilon):
    low, high = min(row[kept]), max(row[kept])
    return [(s - low) / (high - low + epsilon) if k and high > low else 0.0 for s, k in zip(row, kept, strict=True)]


@pytest.mark.parametrize("epsilon", [1e-8, 0.5])
def test_min_max_equals_a_loop(epsilon):
    scores, _, where = example()

    def loop(scores):
        rows = zip(scores, where, strict=True)
        return np.array([scaled(row, kept, epsilon) if kept.any() else np.zeros(N) for row, kept in rows])

    # The loop's row of one entry jumps from 0 to 0/epsilon under finite differences, and so it is left out.
    rows = [0, 1, 2, 4]
    assert_equals_loop(
        lambda s: min_max(s, where=jnp.asarray(where), epsilon=epsilon)[jnp.asarray(rows, jnp.int32)],
        lambda s: loop(s)[rows],
        scores,
    )
    assert_masked_is_deleted(partial(min_max, epsilon=epsilon), scores)


def test_equal_scores_become_zero_and_get_no_gradient():
    value, (gradient,) = value_and_gradients(min_max, [np.full((2, N), 3.5, np.float32)])
    np.testing.assert_array_equal(value, 0.0)
    np.testing.assert_array_equal(gradient, 0.0)


def ranked_loop(scores, candidates, teacher, where):
    losses = np.zeros(B)
    for row in range(B):
        kept = [i for i in range(N) if where[row, candidates[row, i]]]
        total = sum(np.exp(teacher[row, i] / TEACHER_T) for i in kept)
        for i in kept:
            left = [c for c in range(C) if where[row, c] and c not in candidates[row, :i]]
            share = np.exp(scores[row, candidates[row, i]] / T) / sum(np.exp(scores[row, c] / T) for c in left)
            losses[row] -= np.exp(teacher[row, i] / TEACHER_T) / total * np.log(share)
    return losses


def ranked_example():
    random = np.random.default_rng(0)
    candidates = np.array([random.permutation(C)[:N] for _ in range(B)], np.int32)
    where = random.random((B, C)) < 0.6
    where[0], where[-1] = True, False
    where[1] = np.isin(np.arange(C), candidates[1])  # no other document is left
    where[2] = ~np.isin(np.arange(C), candidates[2])  # no candidate is left
    return random.normal(size=(B, C)), candidates, random.normal(size=(B, N)), where


@pytest.mark.parametrize("masked", [False, True])
def test_ranked_distillation_equals_a_loop(masked):
    scores, candidates, teacher, where = ranked_example()
    mask = jnp.asarray(where) if masked else None
    assert_equals_loop(
        lambda s, t: ranked_distillation(s, jnp.asarray(candidates), t, T, TEACHER_T, where=mask),
        lambda s, t: ranked_loop(s, candidates, t, where | (not masked)),
        *(scores, teacher),
    )


def test_ranked_distillation_forgets_what_is_masked():
    scores, candidates, teacher, where = ranked_example()
    covered = np.float32(np.where(where, scores, np.nan))
    teacher = np.float32(np.where(np.take_along_axis(where, candidates, 1), teacher, np.nan))
    loss = lambda s, t: ranked_distillation(s, jnp.asarray(candidates), t, T, TEACHER_T, where=jnp.asarray(where))  # noqa: E731
    value, gradients = value_and_gradients(loss, [covered, teacher])
    np.testing.assert_allclose(value, ranked_loop(scores, candidates, teacher, where), rtol=1e-4, atol=1e-5)
    assert all(np.all(np.isfinite(x)) for x in gradients)
    np.testing.assert_array_equal(gradients[0][~where], 0.0)
    np.testing.assert_array_equal(value[[2, 4]], 0.0)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_ranked_distillation_is_finite_at_extreme_temperatures(temperature):
    scores, candidates, teacher, where = ranked_example()
    finite(
        lambda s, t: ranked_distillation(s, jnp.asarray(candidates), t, temperature, 1.0, where=jnp.asarray(where)),
        *(30 * scores, teacher),
    )


def test_an_ensemble_is_a_weighted_sum_and_teaches_without_learning():
    heads = {"dense": jnp.full((2, 3), 2.0), "lexical": jnp.full((2, 3), 10.0, jnp.bfloat16)}
    total = ensemble_scores(heads, {"dense": 1.0, "lexical": 0.25, "multi_vector": 1.0})
    np.testing.assert_array_equal(total, np.full((2, 3), 4.5))
    assert total.dtype == jnp.float32
    with pytest.raises(KeyError, match="lexical"):
        ensemble_scores(heads, {"dense": 1.0})
    scores, ensemble, where = example()
    loss = partial(self_distillation, temperature=T, where=jnp.asarray(where))
    value, (gradient, none) = value_and_gradients(loss, [np.float32(scores), np.float32(ensemble)])
    wanted, (slope, _) = value_and_gradients(
        lambda s, t: soft_cross_entropy(s, t, T, T, where=jnp.asarray(where)),
        [np.float32(scores), np.float32(ensemble)],
    )
    np.testing.assert_array_equal(value, wanted)
    np.testing.assert_array_equal(gradient, slope)
    np.testing.assert_array_equal(none, 0.0)


def test_embedding_mse_equals_a_loop():
    student, teacher, _ = example()
    assert_equals_loop(
        embedding_mse,
        lambda s, t: np.array(
            [sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / N for x, y in zip(s, t, strict=True)]
        ),
        *(student, teacher),
    )
    assert embedding_mse(jnp.ones((2, 3)), jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32
    assert jax.eval_shape(embedding_mse, student, teacher).shape == (B,)
