import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops import compressed_maxsim
from jaxret.ops.compressed_maxsim import Codebook, Compressed, centroid_maxsim, decompressed_maxsim
from jaxret.ops.residuals import decompressed


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for name, size in (("CENTROID_BLOCK", 4), ("CENTROID_TOKENS", 3), ("EXACT_BLOCK", 4), ("EXACT_TOKENS", 3)):
        monkeypatch.setattr(compressed_maxsim, name, size)


@pytest.fixture(scope="module")
def made():
    """Ten documents, empty ones alone in a block and among others, in a flat array with a gap."""
    random = np.random.default_rng(0)
    lengths = np.asarray([0, 0, 0, 0, 5, 1, 0, 3, 7, 2], np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths[:-1])]).astype(np.int32) + 2
    count = int(lengths.sum()) + 2
    return {
        "lengths": jnp.asarray(lengths),
        "starts": jnp.asarray(starts),
        "codes": jnp.asarray(random.integers(0, 6, size=count).astype(np.int32)),
        "residuals": jnp.asarray(random.integers(0, 256, size=(count, 2)).astype(np.uint8)),
        "centroids": jnp.asarray(random.normal(size=(6, 8)).astype(np.float32)),
        "weights": jnp.asarray(np.sort(random.normal(size=4)).astype(np.float32)),
        "q": jnp.asarray(random.normal(size=(4, 8)).astype(np.float32)),
    }


def plain(products, made):
    """Sums of the largest products `[n s]` over each document's rows."""
    rows = zip(made["starts"].tolist(), made["lengths"].tolist(), strict=True)
    return [np.asarray(products[a : a + n]).max(0).sum() if n else -np.inf for a, n in rows]


def test_centroids_alone_equal_a_plain_loop(made):
    table = made["centroids"] @ made["q"].T
    found = centroid_maxsim(table, made["codes"], made["starts"], made["lengths"])
    np.testing.assert_allclose(found, plain(table[made["codes"]], made), rtol=1e-6)


def test_a_document_of_pruned_centroids_scores_minus_infinity(made):
    table = (made["centroids"] @ made["q"].T).at[:5].set(-jnp.inf)
    found = np.asarray(centroid_maxsim(table, made["codes"], made["starts"], made["lengths"]))
    np.testing.assert_allclose(found, plain(table[made["codes"]], made), rtol=1e-6)
    assert np.isinf(found[np.asarray(made["lengths"]) > 0]).any() and np.isfinite(found).any()


def test_decompressed_vectors_equal_a_plain_loop(made):
    vectors = decompressed(made["centroids"][made["codes"]], made["residuals"], made["weights"])
    documents = Compressed(made["codes"], made["residuals"])
    codebook = Codebook(made["centroids"], made["weights"])
    found = decompressed_maxsim(made["q"], documents, codebook, made["starts"], made["lengths"])
    np.testing.assert_allclose(found, plain(vectors @ made["q"].T, made), rtol=1e-5)
