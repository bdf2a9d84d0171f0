from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.memory_bank import UNKNOWN, bank_scores, empty_bank, remembered

LANGUAGES, SIZE, WIDTH, STEPS = 3, 7, 4, 50


def batches(seed=0):
    """Batches of several sizes, one of them larger than a ring; language 2 comes late."""
    random = np.random.default_rng(seed)
    for step in range(STEPS):
        rows = int(random.integers(1, 6)) if step != 20 else 19
        language = random.integers(0, 2 if step < 12 else 3, rows)
        yield random.normal(size=(rows, WIDTH)).astype(np.float32), language, random.integers(0, 999, rows)


def test_fifty_steps_are_those_of_plain_queues():
    bank, push, asking = empty_bank(LANGUAGES, SIZE, WIDTH), jax.jit(remembered), jax.jit(bank_scores)
    rings = [deque(maxlen=SIZE) for _ in range(LANGUAGES)]
    probe = np.random.default_rng(1).normal(size=(5, WIDTH)).astype(np.float32)
    asked = np.array([0, 1, 2, 2, 0])
    for vectors, language, keys in batches():
        scores, found, written = map(np.asarray, asking(probe, bank, asked))
        for row, which in enumerate(asked):
            expected = sorted((int(key), float(probe[row] @ vector)) for vector, key in rings[which])
            got = sorted(zip(found[row][written[row]].tolist(), scores[row][written[row]].tolist(), strict=True))
            assert [key for key, _ in got] == [key for key, _ in expected]
            np.testing.assert_allclose([x for _, x in got], [x for _, x in expected], rtol=1e-5, atol=1e-6)
        bank = push(bank, jnp.asarray(vectors), jnp.asarray(language), jnp.asarray(keys))
        for vector, which, key in zip(vectors, language, keys, strict=True):
            rings[which].append((vector, key))
    assert [len(ring) for ring in rings] == bank.filled.tolist() == [SIZE] * LANGUAGES


def test_the_oldest_place_is_overwritten_first():
    bank, push = empty_bank(1, 3, 1), jax.jit(remembered)
    for number in range(5):
        bank = push(bank, np.full((1, 1), number, np.float32), np.zeros(1, int), np.array([number]))
    assert bank.keys.tolist() == [[3, 4, 2]]
    assert bank.next.tolist() == [2]


def test_nothing_is_remembered_at_first():
    bank = empty_bank(2, 3, 4)
    scores, keys, written = bank_scores(jnp.ones((2, 4)), bank, jnp.array([0, 1]))
    assert not np.any(written)
    assert np.all(np.asarray(keys) == UNKNOWN)
    assert np.all(np.isfinite(scores))


@pytest.mark.parametrize("into", ["remembered", "scores"])
def test_gradients_flow_to_the_query_alone(into):
    bank = empty_bank(1, 3, 2)
    zero, key = jnp.zeros(2, int), jnp.arange(2)

    def total(x):
        if into == "remembered":
            return jnp.sum(remembered(bank, x, zero, key).vectors)
        filled = remembered(bank, jnp.array([[1.0, 2.0], [3.0, 4.0]]), zero, key)
        return jnp.sum(bank_scores(x, filled, zero)[0])

    gradient = jax.jit(jax.grad(total))(jnp.ones((2, 2)))
    np.testing.assert_array_equal(gradient, 0 if into == "remembered" else [[4, 6], [4, 6]])
