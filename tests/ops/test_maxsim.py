import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.maxsim import maxsim

B, S, C, T, K = 3, 4, 5, 6, 7
EMPTY_DOCUMENT = 2


def loop(q, d, q_mask, d_mask):
    """MaxSim as one would say it: for each query token the best document token, summed."""
    scores = np.zeros((len(q), len(d)))
    for i in range(len(q)):
        for j in range(len(d)):
            for token in q[i][q_mask[i]]:
                kept = d[j][d_mask[j]]
                scores[i, j] += max(float(token @ other) for other in kept) if len(kept) else 0.0
    return scores


def naive(q, d, q_mask, d_mask):
    """One big einsum, left to automatic differentiation."""
    scores = jnp.einsum("bsk,ctk->bcst", q, d)
    scores = jnp.where(d_mask[None, :, None, :], scores, -jnp.inf)
    kept = q_mask[:, None, :] & jnp.any(d_mask, axis=1)[None, :, None]
    return jnp.sum(jnp.where(kept, jnp.max(scores, axis=-1), 0.0), axis=-1)


def example(seed=0):
    random = np.random.default_rng(seed)
    q, d = random.normal(size=(B, S, K)), random.normal(size=(C, T, K))
    q_mask, d_mask = random.random((B, S)) < 0.7, random.random((C, T)) < 0.6
    q_mask[:, 0], d_mask[:, 1], d_mask[EMPTY_DOCUMENT] = True, True, False
    return q, d, q_mask, d_mask


def f32(q, d, q_mask, d_mask):
    return jnp.float32(q), jnp.float32(d), jnp.asarray(q_mask), jnp.asarray(d_mask)


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_loop(seed):
    scores = maxsim(*f32(*example(seed)))
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, loop(*example(seed)), rtol=1e-5, atol=1e-5)


def test_a_document_without_kept_tokens_scores_zero():
    assert not np.any(maxsim(*f32(*example()))[:, EMPTY_DOCUMENT])


@pytest.mark.parametrize("seed", range(2))
def test_gradients_equal_finite_differences_in_float64(seed):
    q, d, q_mask, d_mask = example(seed)
    weight = np.random.default_rng(9).normal(size=(B, C))
    masks = jnp.asarray(q_mask), jnp.asarray(d_mask)
    step = 1e-6

    def difference(x, place, value):
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        return (value(moved[0]) - value(moved[1])) / (2 * step)

    with jax.enable_x64(True):
        for number, x in ((0, q), (1, d)):
            gradient = jax.grad(lambda q, d: jnp.sum(weight * maxsim(q, d, *masks)), argnums=number)(
                jnp.asarray(q), jnp.asarray(d)
            )
            assert gradient.dtype == jnp.float64

            def value(y, number=number):
                arrays = (y, d) if number == 0 else (q, y)
                return np.sum(weight * loop(*arrays, q_mask, d_mask))

            expected = [difference(x, place, value) for place in np.ndindex(x.shape)]
            np.testing.assert_allclose(np.ravel(gradient), expected, rtol=1e-5, atol=1e-5)


def test_gradients_equal_those_of_the_naive_product():
    q, d, q_mask, d_mask = f32(*example(4))
    weight = jnp.asarray(np.random.default_rng(9).normal(size=(B, C)), jnp.float32)

    def gradients(score):
        return jax.grad(lambda q, d: jnp.sum(weight * score(q, d, q_mask, d_mask)), argnums=(0, 1))(q, d)

    for ours, theirs in zip(gradients(maxsim), gradients(naive), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_pad_does_not_beat_a_negative_match():
    q, d = jnp.array([[[1.0, 0.0]]]), jnp.array([[[-0.6, 0.8], [0.0, 0.0]]])
    score = maxsim(q, d, jnp.array([[True]]), jnp.array([[True, False]]))
    np.testing.assert_allclose(score, [[-0.6]], rtol=1e-6)


@pytest.mark.parametrize("rubbish", [0.0, 1e30, np.inf, np.nan])
def test_padding_is_invisible(rubbish):
    q, d, q_mask, d_mask = example()
    wide_q, wide_d = (np.pad(x, ((0, 0), (0, 3), (0, 0)), constant_values=rubbish) for x in (q, d))
    wide_masks = (np.pad(x, ((0, 0), (0, 3))) for x in (q_mask, d_mask))
    np.testing.assert_array_equal(maxsim(*f32(wide_q, wide_d, *wide_masks)), maxsim(*f32(q, d, q_mask, d_mask)))


def test_permuting_documents_and_queries_permutes_scores():
    q, d, q_mask, d_mask = example()
    rows, columns = np.array([2, 0, 1]), np.array([4, 1, 0, 3, 2])
    turned = maxsim(*f32(q[rows], d[columns], q_mask[rows], d_mask[columns]))
    np.testing.assert_allclose(turned, maxsim(*f32(q, d, q_mask, d_mask))[rows][:, columns], rtol=1e-6)


def test_bfloat16_is_summed_in_float32():
    random = np.random.default_rng(0)
    q, d = (jnp.asarray(random.normal(size=(2, 8, 512)), jnp.bfloat16) for _ in range(2))
    mask = np.ones((2, 8), bool)
    scores = maxsim(q, d, jnp.asarray(mask), jnp.asarray(mask))
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, loop(np.float64(q), np.float64(d), mask, mask), rtol=1e-5)
    gradient = jax.grad(lambda q: jnp.sum(maxsim(q, d, jnp.asarray(mask), jnp.asarray(mask))))(q)
    assert gradient.dtype == jnp.bfloat16
