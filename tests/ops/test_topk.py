from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxret.ops.topk import EMPTY, TopK, empty_top_k, merged, with_block

B, BLOCKS, C = 2, 3, 4
TIES = st.sampled_from([-1.5, -0.0, 0.0, 0.0, 1.0, 2.0])


def oracle(scores, positions, k):
    """Best first, equal scores by ascending position; -inf is no result."""
    best_scores, best_positions = [], []
    for row in range(len(scores)):
        places = positions if positions.ndim == 1 else positions[row]
        order = np.lexsort((places, -scores[row]))[:k]
        best_scores.append(scores[row][order])
        best_positions.append(np.where(scores[row][order] == -np.inf, EMPTY, places[order]))
    return np.array(best_scores), np.array(best_positions)


@partial(jax.jit, static_argnums=2)
def merged_(scores, positions, k):
    return merged(TopK(scores, positions), k)


@jax.jit
def step(best, scores, positions):
    return with_block(best, scores, positions)


def scanned(blocks, positions, k):
    best = empty_top_k(B, k)
    for scores, places in zip(blocks, positions, strict=True):
        best = step(best, scores, places)
    return best


def assert_equals(found, expected):
    np.testing.assert_array_equal(found.positions, expected[1])
    np.testing.assert_array_equal(found.scores, expected[0])
    assert not np.any(np.signbit(found.scores) & (np.asarray(found.scores) == 0)), "a negative zero"


@settings(max_examples=100)
@given(
    arrays(np.float32, (B, BLOCKS * C), elements=TIES), st.permutations(range(BLOCKS * C)), st.sampled_from([1, 5, 12])
)
def test_merged_equals_a_sort(scores, order, k):
    positions = np.broadcast_to(np.array(order, np.int32), scores.shape)
    assert_equals(merged_(scores, positions, k), oracle(scores, positions, k))


@settings(max_examples=100)
@given(
    arrays(np.float32, (B, BLOCKS, C), elements=TIES),
    st.permutations(range(BLOCKS * C)),
    st.integers(0, C - 1),
    st.sampled_from([1, 5, 12]),
)
def test_scanned_blocks_equal_one_sort(scores, order, padding, k):
    positions = np.sort(np.array(order, np.int32).reshape(BLOCKS, C), axis=1)
    positions[-1, C - padding :] = EMPTY
    found = scanned(scores.swapaxes(0, 1), positions, k)
    flat = np.where(positions.reshape(-1) == EMPTY, -np.inf, scores.reshape(B, -1))
    assert_equals(found, oracle(flat, positions.reshape(-1), k))


@pytest.mark.parametrize("k", [1, 3])
def test_zeros_of_either_sign_tie(k):
    scores = np.array([[[-0.0, 0.0, -0.0, 0.0]]] * B, np.float32).swapaxes(0, 1)
    found = scanned(scores, np.arange(4, dtype=np.int32)[None], k)
    np.testing.assert_array_equal(found.positions, [list(range(k))] * B)


def test_slots_past_the_corpus_are_empty():
    found = scanned(np.zeros((1, B, C), np.float32), np.array([[7, 9, EMPTY, EMPTY]], np.int32), 4)
    np.testing.assert_array_equal(found.positions, [[7, 9, EMPTY, EMPTY]] * B)
    np.testing.assert_array_equal(found.scores, [[0, 0, -np.inf, -np.inf]] * B)


def test_no_result_yet():
    empty = empty_top_k(2, 3)
    assert np.all(np.asarray(empty.scores) == -np.inf) and np.all(np.asarray(empty.positions) == EMPTY)
