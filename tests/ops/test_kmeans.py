import jax.numpy as jnp
import numpy as np

from jaxret.ops.kmeans import kmeans_step


def test_a_step_equals_a_plain_loop_and_padding_counts_nowhere():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(3, 7, 8)).astype(np.float32)
    used = np.ones((3, 7), bool)
    used[2, 4:] = False
    centroids = random.normal(size=(4, 8)).astype(np.float32)
    centroids[3] = -10 * centroids.sum(0)  # large products: it draws half of the vectors
    expected = centroids.copy()
    flat = vectors[used]
    nearest = np.argmax(flat @ centroids.T, axis=1)
    for number in set(nearest.tolist()):
        total = flat[nearest == number].sum(0)
        expected[number] = total / np.linalg.norm(total)
    found = kmeans_step(jnp.asarray(vectors), jnp.asarray(used), jnp.asarray(centroids))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_empty_cluster_and_one_that_cancels_keep_their_centroids():
    centroids = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    vectors = jnp.asarray([[[0.6, 0.8], [-0.6, 0.8], [-1.0, 0.5], [1.0, -0.5]]])
    found = kmeans_step(vectors, jnp.asarray([[True, True, True, False]]), centroids)
    np.testing.assert_allclose(found[0], [1, 0])
    np.testing.assert_allclose(found[1], np.array([-1.0, 2.1]) / np.hypot(1, 2.1), rtol=1e-6)
    np.testing.assert_allclose(found[2], [0, -1])
