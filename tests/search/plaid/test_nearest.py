import numpy as np
import pytest

from jaxret.search.plaid import codec, nearest
from jaxret.search.plaid.codec import trained_codec
from jaxret.search.plaid.nearest import Groups, Nearest
from tests.search.plaid.conftest import clustered, unit


@pytest.fixture
def grouped(monkeypatch):
    monkeypatch.setattr(nearest, "MOST_EXACT", 64)
    monkeypatch.setattr(codec, "MOST_EXACT", 64)
    monkeypatch.setattr(nearest, "BLOCK", 512)


def vectors(count, seed):
    around = np.random.default_rng(9).normal(size=(40, 16))
    random = np.random.default_rng(seed)
    return unit(around[random.integers(0, 40, count)] + 0.4 * random.normal(size=(count, 16)))


@pytest.mark.parametrize("count", [65, 100, 256])
def test_every_centroid_is_in_a_group(count):
    groups = Groups.of(vectors(count, 1))
    assert set(groups.numbers.ravel().tolist()) == set(range(count))
    np.testing.assert_array_equal(groups.members, vectors(count, 1)[groups.numbers])


@pytest.mark.parametrize("count", [100, 256])
def test_of_the_groups_probed_it_is_the_nearest_member(grouped, count):
    centroids, x = vectors(count, 1), vectors(700, 2)
    groups = Groups.of(centroids)
    probed = np.argsort(-(x @ np.asarray(groups.means).T), axis=1, kind="stable")[:, : nearest.PROBED]
    members = [np.unique(groups.numbers[row]) for row in probed]
    expected = [own[np.argmax(centroids[own] @ row)] for own, row in zip(members, x, strict=True)]
    np.testing.assert_array_equal(Nearest(centroids)(x), expected)


def test_groups_find_most_of_the_nearest(grouped):
    centroids, x = vectors(256, 1), vectors(700, 2)
    best, found = np.argmax(x @ centroids.T, axis=1), Nearest(centroids)(x)
    assert np.mean(best == found) > 0.8
    assert np.mean(np.einsum("nk,nk->n", x, centroids[best] - centroids[found])) < 0.01


def test_k_means_through_groups_is_about_as_good(monkeypatch):
    x = clustered(200, 3).tokens.values
    exact = trained_codec(x, nbits=2, num_centroids=128)
    monkeypatch.setattr(nearest, "MOST_EXACT", 64)
    monkeypatch.setattr(codec, "MOST_EXACT", 64)
    grouped = trained_codec(x, nbits=2, num_centroids=128)
    assert grouped.centroids.tobytes() != exact.centroids.tobytes()
    assert grouped.avg_residual == pytest.approx(exact.avg_residual, rel=0.05)
    assert grouped.avg_residual < trained_codec(x, nbits=2, num_centroids=128, kmeans_niters=0).avg_residual
