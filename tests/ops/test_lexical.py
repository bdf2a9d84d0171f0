import jax
import jax.numpy as jnp
import numpy as np

from jaxret.ops.lexical import lexical_scores, vocabulary_weights

B, L, V = 4, 9, 6


def example():
    random = np.random.default_rng(0)
    weights = random.random((B, L))
    weights[random.random((B, L)) < 0.3] = 0.0
    return weights, random.integers(0, V, (B, L))


def loop(weights, token_ids):
    vectors = np.zeros((len(weights), V))
    for row in range(len(weights)):
        for weight, token in zip(weights[row], token_ids[row], strict=True):
            vectors[row, token] = max(vectors[row, token], weight)
    return vectors


def test_repeated_tokens_keep_their_largest_weight():
    weights, token_ids = example()
    assert any(len(set(row)) < L for row in token_ids)
    vectors = vocabulary_weights(jnp.float32(weights), jnp.asarray(token_ids), V)
    np.testing.assert_array_equal(vectors, np.float32(loop(weights, token_ids)))


def test_the_gradient_goes_to_the_largest_weight_of_a_repeated_token():
    weights, token_ids = example()
    factor = np.random.default_rng(1).normal(size=(B, V))
    gradient = jax.grad(lambda w: jnp.sum(factor * vocabulary_weights(w, jnp.asarray(token_ids), V)))(
        jnp.float32(weights)
    )
    expected = np.zeros((B, L))
    for row in range(B):
        for token in range(V):
            places = np.flatnonzero((token_ids[row] == token) & (weights[row] > 0))
            if len(places):
                expected[row, places[np.argmax(weights[row, places])]] = factor[row, token]
    kept = weights > 0
    np.testing.assert_allclose(np.asarray(gradient)[kept], expected[kept], rtol=1e-6)


def test_bfloat16_weights_become_float32_vectors():
    weights, token_ids = example()
    assert vocabulary_weights(jnp.bfloat16(weights), jnp.asarray(token_ids), V).dtype == jnp.float32


def test_scores_are_dot_products_summed_in_float32():
    random = np.random.default_rng(0)
    q, d = random.random((2, 300)), random.random((3, 300))
    q, d = (jnp.asarray(x, jnp.bfloat16) for x in (q, d))
    scores = lexical_scores(q, d)
    assert scores.dtype == jnp.float32
    expected = [[sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) for y in d] for x in q]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
