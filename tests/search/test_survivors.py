import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxret.ops.topk import EMPTY
from jaxret.search import survivors
from jaxret.search.survivors import Scores, Survivors

QUERIES, DOCUMENTS = 3, 24


def streams(kind, blocks, seed):
    """float32 [blocks QUERIES DOCUMENTS]."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(blocks, QUERIES, DOCUMENTS)).astype(np.float32)
    if kind == "ties":
        return np.round(scores)
    if kind == "rising":
        return np.sort(scores.swapaxes(0, 1).reshape(QUERIES, -1)).reshape(QUERIES, blocks, -1).swapaxes(0, 1).copy()
    if kind == "one query rises":
        scores[:, 1] = np.arange(blocks * DOCUMENTS).reshape(blocks, DOCUMENTS)
    return scores


def grouped(scores, positions, members=1):
    """Scores `[b c]` and positions `[c]` in groups of some members; padding scores -inf."""
    every = np.where(positions == EMPTY, -np.inf, scores).astype(np.float32).reshape(len(scores), -1, members)
    return Scores(every, every.max(axis=2), positions.reshape(-1, members))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["random", "ties", "rising", "one query rises"]),
    st.integers(1, 12),
    st.integers(1, 30),
    st.integers(0, DOCUMENTS - 1),
    st.sampled_from([1, 2, 8, DOCUMENTS]),
    st.integers(0, 10**6),
)
def test_what_survives_are_the_best(kind, blocks, kept, padding, members, seed):
    scores, survivors = streams(kind, blocks, seed), Survivors(QUERIES, kept)
    positions = np.arange(blocks * DOCUMENTS, dtype=np.int32).reshape(blocks, DOCUMENTS)
    positions[-1, DOCUMENTS - padding :] = EMPTY
    for number in range(blocks):
        survivors.add(grouped(scores[number], positions[number], members))
    reached, places = survivors.best()
    flat = np.where(positions == EMPTY, -np.inf, scores.swapaxes(0, 1)).reshape(QUERIES, -1)
    best = -np.sort(-flat, axis=1)
    if kept <= np.count_nonzero(positions != EMPTY):
        np.testing.assert_array_equal(reached, best[:, kept - 1])
    else:
        assert (reached == -np.inf).all()
    for row in range(QUERIES):
        real = places[row][places[row] != EMPTY]
        assert len(set(real.tolist())) == len(real) >= min(kept, np.count_nonzero(positions != EMPTY))
        assert (flat[row][real] >= reached[row]).all()
        others = np.setdiff1d(np.arange(flat.shape[1]), real)
        assert (flat[row][others] <= reached[row]).all()


def test_a_block_of_ties_is_cut():
    best = Survivors(QUERIES, 2)
    for number in range(3):
        positions = np.arange(number * DOCUMENTS, (number + 1) * DOCUMENTS, dtype=np.int32)
        best.add(grouped(np.ones((QUERIES, DOCUMENTS), np.float32), positions))
    reached, places = best.best()
    assert (reached == 1).all() and 2 <= places.shape[1] <= 2 * 2


@pytest.mark.parametrize(("kind", "most"), [("random", 12), ("rising", 600)])
def test_floors_are_seldom_raised(kind, most, monkeypatch):
    """Where every document is better than the one before, block by block."""
    raised, reached = [], survivors._reached
    monkeypatch.setattr(survivors, "_reached", lambda *args: raised.append(0) or reached(*args))
    best = Survivors(QUERIES, 5)
    for number, block in enumerate(streams(kind, 200, 0)):
        positions = np.arange(number * DOCUMENTS, (number + 1) * DOCUMENTS, dtype=np.int32)
        best.add(grouped(block, positions))
    assert most / 4 < len(raised) <= most
