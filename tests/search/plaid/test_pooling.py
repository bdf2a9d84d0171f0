import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.search.plaid.pooling import pooled
from jaxret.search.vectors import Ragged
from tests.search.plaid.conftest import clustered


def ward(points, count):
    """Clusters of points by Ward's criterion: of all pairs the one whose union adds the least to the squared error."""
    groups = [[number] for number in range(len(points))]

    def error(members):
        return ((points[members] - points[members].mean(0)) ** 2).sum()

    while len(groups) > count:
        pairs = [(i, j) for i in range(len(groups)) for j in range(i)]
        i, j = min(pairs, key=lambda p: error(groups[p[0]] + groups[p[1]]) - error(groups[p[0]]) - error(groups[p[1]]))
        groups[j] += groups.pop(i)
    return groups


@pytest.mark.parametrize(("factor", "protected"), [(2, 0), (3, 0), (2, 1), (50, 0)])
def test_clusters_and_means_equal_a_plain_loop(factor, protected):
    tokens = clustered(5, 4, empty=(2,)).tokens
    found = pooled(tokens, factor, protected)
    assert len(found) == len(tokens)
    for row in range(len(tokens)):
        vectors = tokens.row(row).astype(np.float64)
        rest = vectors[protected:]
        count = max(len(vectors) // factor, 1)
        expected = [rest[group].mean(0) for group in ward(1 - rest @ rest.T, count)] if len(rest) else []
        expected = [mean / np.linalg.norm(mean) for mean in expected] + list(vectors[:protected])
        assert len(found.row(row)) == len(expected)
        a, b = (np.asarray(sorted(np.round(x, 5).tolist())).reshape(-1, 16) for x in (found.row(row), expected))
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_factor_of_one_changes_nothing_and_none_below_is_taken():
    tokens = clustered(3, 4).tokens
    assert pooled(tokens, 1) is tokens
    assert pooled(Ragged.from_rows([tokens.row(0)[:1]]), 2).values.shape == (1, 16)
    with pytest.raises(InputError, match="pool_factor: 0"):
        pooled(tokens, 0)
