import jax.numpy as jnp
import numpy as np

from jaxret.ops.centroid_groups import nearest_groups, nearest_members


def test_groups_come_in_the_order_of_their_products_of_either_sign():
    random = np.random.default_rng(0)
    x, means = random.normal(size=(50, 8)).astype(np.float32), random.normal(size=(13, 8)).astype(np.float32)
    expected = np.argsort(-(x @ means.T), axis=1, kind="stable")
    np.testing.assert_array_equal(nearest_groups(jnp.asarray(x), jnp.asarray(means), 13), expected)
    np.testing.assert_array_equal(nearest_groups(jnp.asarray(x), jnp.asarray(means), 2), expected[:, :2])


def test_members_equal_a_plain_loop():
    random = np.random.default_rng(1)
    x, members = random.normal(size=(20, 8)).astype(np.float32), random.normal(size=(3, 5, 8)).astype(np.float32)
    members[1, 3] = members[1, 0]  # of equal ones the first
    rows, group = random.integers(0, 20, (4, 6)), np.asarray([2, 1, 0, 1])
    arrays = map(jnp.asarray, (x, rows.astype(np.int32), group.astype(np.int32), members))
    scores, member = nearest_members(*arrays)
    for tile in range(4):
        for place in range(6):
            products = members[group[tile]] @ x[rows[tile, place]]
            assert int(member[tile, place]) == int(np.argmax(products))
            np.testing.assert_allclose(scores[tile, place], products.max(), rtol=1e-5)
