from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.eval import intervals
from jaxret.eval.intervals import mean_intervals, paired_difference

SCORES = np.random.default_rng(0).beta(0.5, 0.5, 60)


def loop(values, resamples, seed):
    """Means of resampled values, one draw at a time."""
    random = np.random.default_rng(seed)
    return [
        np.mean([values[i] for i in random.integers(0, len(values), len(values), np.int32)]) for _ in range(resamples)
    ]


def test_equals_a_loop():
    low, high = mean_intervals({"a": SCORES}, resamples=200, seed=3)["a"]
    assert (low, high) == pytest.approx(np.quantile(loop(SCORES, 200, 3), [0.025, 0.975]), abs=1e-12)
    narrow = mean_intervals({"a": SCORES}, level=0.5, resamples=200, seed=3)["a"]
    assert low < narrow[0] < SCORES.mean() < narrow[1] < high


def test_blocks_change_nothing(monkeypatch):
    whole = mean_intervals({"a": SCORES}, resamples=100)
    monkeypatch.setattr(intervals, "_CELLS", 7 * len(SCORES))
    assert mean_intervals({"a": SCORES}, resamples=100)["a"] == pytest.approx(whole["a"], abs=1e-12)


def test_seed_decides():
    assert mean_intervals({"a": SCORES}, resamples=50) == mean_intervals({"a": SCORES}, resamples=50)
    assert mean_intervals({"a": SCORES}, resamples=50) != mean_intervals({"a": SCORES}, resamples=50, seed=1)


def test_agrees_with_the_normal_approximation():
    values = np.random.default_rng(1).random(2_000)
    ends = mean_intervals({"a": values, "half": values / 2}, resamples=4_000)
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert ends["a"] == pytest.approx((values.mean() - error, values.mean() + error), abs=0.05 * error)
    assert ends["half"] == pytest.approx(np.array(ends["a"]) / 2)


def test_one_query():
    assert mean_intervals({"a": np.array([0.25])}, resamples=10) == {"a": (0.25, 0.25)}


def test_a_clear_difference():
    better = paired_difference(SCORES + 0.1, SCORES, resamples=500)
    assert (better.mean, better.low, better.high) == pytest.approx((0.1, 0.1, 0.1))
    assert better.p_value == pytest.approx(2 / 501) and (better.wins, better.losses, better.ties) == (60, 0, 0)
    worse = paired_difference(SCORES, SCORES + 0.1, resamples=500)
    assert (worse.mean, worse.losses) == (pytest.approx(-0.1), 60)


def test_no_difference():
    same = paired_difference(SCORES, SCORES, resamples=100)
    assert (same.mean, same.low, same.high, same.p_value, same.ties) == (0, 0, 0, 1.0, 60)


def test_wins_losses_and_ties():
    found = paired_difference(np.array([1.0, 0.0, 0.5, 1.0]), np.array([0.0, 1.0, 0.5, 0.5]), resamples=100)
    assert (found.wins, found.losses, found.ties, found.mean) == (2, 1, 1, 0.125)


@given(st.integers(0, 1000), st.floats(-0.3, 0.3))
def test_p_value_and_interval_agree(seed, shift):
    random = np.random.default_rng(seed)
    found = paired_difference(random.random(30) + shift, random.random(30), resamples=400, seed=seed)
    assert found.low <= found.mean <= found.high
    if found.p_value < 0.045:
        assert found.low > 0 or found.high < 0
    if found.p_value > 0.06:
        assert found.low <= 0 <= found.high
