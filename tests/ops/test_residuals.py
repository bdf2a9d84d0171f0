import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.residuals import (
    decompressed,
    nearest_centroid,
    packed_residuals,
    plane_order,
    unpacked_weights,
)


def cutoffs_and_weights(bits):
    edges = np.sort(np.random.default_rng(bits).normal(size=2 ** (bits + 1) - 1)).astype(np.float32)
    return edges[1::2], edges[::2]


def plain_bytes(residuals, cutoffs, bits):
    """Bucket after bucket, the lowest bit first, into bytes that fill from the highest bit."""
    rows = []
    for row in residuals:
        stream = ""
        for value in row:
            bucket = sum(value > cutoff for cutoff in cutoffs)
            stream += "".join(str(bucket >> bit & 1) for bit in range(bits))
        rows.append([int(stream[at : at + 8], 2) for at in range(0, len(stream), 8)])
    return np.asarray(rows, np.uint8)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_packing_and_unpacking_equal_a_plain_loop(bits):
    cutoffs, weights = cutoffs_and_weights(bits)
    residuals = np.random.default_rng(0).normal(size=(5, 24)).astype(np.float32)
    residuals[0, : len(cutoffs)] = cutoffs  # a value at a cutoff belongs to the bucket below
    packed = jax.jit(packed_residuals)(residuals, cutoffs)
    np.testing.assert_array_equal(packed, plain_bytes(residuals, cutoffs, bits))
    expected = weights[(residuals[:, :, None] > cutoffs).sum(-1)]
    found = np.asarray(jax.jit(unpacked_weights)(packed, weights))
    np.testing.assert_array_equal(found, jax.jit(plane_order, static_argnums=1)(expected, bits))
    assert sorted(np.asarray(found[0]).tolist()) == sorted(expected[0].tolist())


def test_plane_order_takes_each_place_of_all_bytes():
    np.testing.assert_array_equal(
        plane_order(jnp.arange(16.0)[None], 2)[0], [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]
    )


def test_decompressed_vectors_are_of_length_one_even_where_all_cancels():
    weights = jnp.asarray([-1.0, 1.0])
    packed = jnp.asarray([[0], [255], [15]], jnp.uint8)
    centroids = jnp.asarray([[0.0] * 8, [-1.0] * 8, [2.0] * 8])
    found = np.asarray(jax.jit(decompressed)(centroids, packed, weights))
    np.testing.assert_allclose(found[0], -np.ones(8) / np.sqrt(8), rtol=1e-6)
    np.testing.assert_array_equal(found[1], np.zeros(8))
    np.testing.assert_allclose(found[2], np.array([1] * 4 + [3] * 4) / np.sqrt(40), rtol=1e-6)


def test_the_nearest_centroid_is_the_first_of_equal_ones():
    random = np.random.default_rng(0)
    vectors, centroids = random.normal(size=(30, 8)).astype(np.float32), random.normal(size=(5, 8)).astype(np.float32)
    centroids[3] = centroids[1]
    expected = np.argmax(np.round(vectors.astype(np.float64) @ centroids.T.astype(np.float64), 9), axis=1)
    found = np.asarray(nearest_centroid(jnp.asarray(vectors), jnp.asarray(centroids)))
    np.testing.assert_array_equal(found, expected)
    assert 1 in found and 3 not in found
