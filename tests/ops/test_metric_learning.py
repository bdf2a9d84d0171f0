import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.metric_learning import cosine_scores, euclidean_scores, label_pairs, multi_similarity_pairs, nt_xent
from tests.ops.losses import assert_equals_loop, finite, value_and_gradients

LABELS = np.array([0, 1, 0, 2, 1, 0, 3], np.int32)
N, K = len(LABELS), 5


def vectors(seed=0, rows=N):
    return np.random.default_rng(seed).normal(size=(rows, K))


def cosine(x, y):
    return float(x @ y / np.sqrt(x @ x) / np.sqrt(y @ y))


SCORES = {
    cosine_scores: cosine,
    euclidean_scores: lambda x, y: -float(np.linalg.norm(x / np.linalg.norm(x) - y / np.linalg.norm(y))),
}


@pytest.mark.parametrize("scores", SCORES, ids=lambda f: f.__name__)
def test_scores_equal_a_loop(scores):
    assert_equals_loop(
        scores, lambda x, y: np.array([[SCORES[scores](a, b) for b in y] for a in x]), vectors(0, 3), vectors(1, 4)
    )


def test_a_vector_is_no_distance_from_itself_and_gets_no_gradient_from_it():
    x = np.float32(vectors())
    value, (gradient,) = value_and_gradients(lambda x: jnp.diagonal(euclidean_scores(x, x)), [x])
    np.testing.assert_array_equal(value, 0.0)
    np.testing.assert_array_equal(gradient, 0.0)
    finite(lambda x: euclidean_scores(x, x), np.zeros((2, K)))


def test_label_pairs_are_all_pairs_of_one_label_and_of_two():
    positive, negative = label_pairs(jnp.asarray(LABELS))
    for i in range(N):
        for j in range(N):
            assert positive[i, j] == (LABELS[i] == LABELS[j] and i != j)
            assert negative[i, j] == (LABELS[i] != LABELS[j])


def pairs(seed):
    """Random disjoint masks; one row has no positive, one no negative, one nothing."""
    random = np.random.default_rng(seed)
    positive = random.random((N, N)) < 0.4
    negative = ~positive & (random.random((N, N)) < 0.7)
    positive[1], negative[2], positive[3], negative[3] = False, False, False, False
    return positive, negative


def nt_xent_loop(scores, positive, negative, temperature):
    losses = np.zeros(len(scores))
    for i, row in enumerate(np.exp(scores / temperature)):
        for j in np.flatnonzero(positive[i]):
            losses[i] -= np.log(row[j] / (row[j] + sum(row[k] for k in np.flatnonzero(negative[i]))))
    return losses


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_nt_xent_equals_a_loop(temperature):
    positive, negative = pairs(0)
    scores = np.tanh(np.random.default_rng(1).normal(size=(N, N)))
    assert_equals_loop(
        lambda s: nt_xent(s, jnp.asarray(positive), jnp.asarray(negative), temperature),
        lambda s: nt_xent_loop(s, positive, negative, temperature),
        scores,
    )
    with_both = np.any(positive, axis=1) & np.any(negative, axis=1)
    np.testing.assert_array_equal(nt_xent_loop(scores, positive, negative, temperature) > 0, with_both)
    assert np.any(with_both) and not np.any(with_both[1:4])


def test_pairs_of_neither_kind_might_as_well_not_be_there():
    positive, negative = pairs(0)
    scores = np.random.default_rng(1).normal(size=(N, N))
    covered = np.float32(np.where(positive | negative, scores, np.nan))
    value, (gradient,) = value_and_gradients(
        lambda s: nt_xent(s, jnp.asarray(positive), jnp.asarray(negative), 0.5), [covered]
    )
    np.testing.assert_allclose(value, nt_xent_loop(scores, positive, negative, 0.5), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gradient[~(positive | negative)], 0.0)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@pytest.mark.parametrize("scores", SCORES, ids=lambda f: f.__name__)
def test_extreme_temperatures_are_finite(scores, temperature):
    finite(lambda x: nt_xent(scores(x, x), *label_pairs(jnp.asarray(LABELS)), temperature), vectors())


def mined_loop(scores, positive, negative, epsilon):
    kept = np.zeros_like(positive), np.zeros_like(negative)
    for i in range(N):
        for j in range(N):
            negatives = [scores[i, k] for k in range(N) if negative[i, k]]
            positives = [scores[i, k] for k in range(N) if positive[i, k]]
            kept[0][i, j] = positive[i, j] and any(scores[i, j] - epsilon < s for s in negatives)
            kept[1][i, j] = negative[i, j] and any(scores[i, j] + epsilon > s for s in positives)
    return kept


@pytest.mark.parametrize("epsilon", [0.0, 0.25])
def test_mining_equals_a_loop(epsilon):
    positive, negative = pairs(0)
    scores = np.random.default_rng(1).integers(-8, 9, (N, N)) / 8  # exact sums, and ties
    found = multi_similarity_pairs(jnp.float32(scores), jnp.asarray(positive), jnp.asarray(negative), epsilon)
    for ours, theirs, before in zip(
        found, mined_loop(scores, positive, negative, epsilon), (positive, negative), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
        assert 0 < np.sum(theirs) < np.sum(before)
