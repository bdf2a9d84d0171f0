import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.train.schedules import constant, cosine, inverse_square_root, linear, warmup_stable_decay

STEPS, PEAK, WARMUP, FINAL = 50, 0.3, 10, 0.2
SCHEDULES = [constant, cosine, inverse_square_root, linear, warmup_stable_decay]


def rates(schedule, steps=STEPS, **settings):
    found = schedule(steps, PEAK, warmup=0.2, final=FINAL, **settings)
    return np.array([float(found(step)) for step in range(steps + 5)])


def down(begin, shape):
    """From the peak at step `begin` to the final rate at the last, and on it after that."""
    over = np.clip((np.arange(WARMUP, STEPS + 5) - begin) / (STEPS - begin), 0, 1)
    return PEAK * (FINAL + (1 - FINAL) * shape(over))


EXPECTED = {
    "constant": (constant, {}, down(WARMUP, lambda u: np.ones_like(u))),
    "cosine": (cosine, {}, down(WARMUP, lambda u: (1 + np.cos(np.pi * u)) / 2)),
    "linear": (linear, {}, down(WARMUP, lambda u: 1 - u)),
    "inverse": (
        inverse_square_root,
        {},
        PEAK * np.maximum(FINAL, np.sqrt(WARMUP / np.arange(WARMUP, STEPS + 5))),
    ),
    "stable_linear": (warmup_stable_decay, {"decay": 0.4}, down(30, lambda u: 1 - u)),
    "stable_sqrt": (warmup_stable_decay, {"decay": 0.4, "shape": "sqrt"}, down(30, lambda u: 1 - np.sqrt(u))),
    "stable_cosine": (
        warmup_stable_decay,
        {"decay": 0.8, "shape": "cosine"},
        down(WARMUP, lambda u: (1 + np.cos(np.pi * u)) / 2),
    ),
}


@pytest.mark.parametrize(("schedule", "settings", "rest"), EXPECTED.values(), ids=EXPECTED)
def test_equals_its_formula(schedule, settings, rest):
    expected = np.concatenate([PEAK * np.arange(WARMUP) / WARMUP, rest])
    np.testing.assert_allclose(rates(schedule, **settings), expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_runs_have_a_schedule(schedule, steps):
    found = rates(schedule, steps)
    assert found[0] == 0 and np.all((found >= 0) & (found <= PEAK + 1e-7)) and found.max() > 0


@pytest.mark.parametrize(
    ("schedule", "settings", "message"),
    [
        (cosine, {"warmup": 1.5}, "cosine.warmup: 1.5 is no share"),
        (linear, {"warmup": -0.1}, "linear.warmup"),
        (warmup_stable_decay, {"shape": "steps"}, "unknown 'steps'. Choose one of linear, sqrt, cosine"),
        (warmup_stable_decay, {"decay": 0.95}, "0.95 of the steps beside a warm-up of 0.1"),
        (warmup_stable_decay, {"decay": 0.0}, "warmup_stable_decay.decay"),
    ],
)
def test_wrong_settings(schedule, settings, message):
    with pytest.raises(InputError, match=message):
        schedule(STEPS, PEAK, **settings)
