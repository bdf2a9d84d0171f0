import functools
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.train.progress import HISTORY, history
from jaxret.train.step import fresh_state, train_step
from tests.train import plain_model as plain

ROWS = [3, 5]


def without_number(*numbers, value=np.nan):
    """Batches of which some have a number that is not finite, in two rows."""

    def batches(*, start, **settings):
        for number, rows in enumerate(plain.batches(start=start, **settings), start):
            if number in numbers:
                rows["x"][ROWS, 1] = value
            yield rows

    return batches


@pytest.fixture(scope="module")
def step():
    """The plain model's step, and its state after two of them."""
    model, objective, optimizer = plain.Plain(), plain.remembered(), plain.optimizer(6)
    program = jax.jit(
        functools.partial(train_step, apply=model.for_search(), objective=objective.loss, optimizer=optimizer, seed=0)
    )
    params, memory = objective.begun(model, model.init(0), 0)
    state = fresh_state(params, optimizer, jax.tree.map(jnp.asarray, {"memory": memory["memory"].value}))
    for number in range(2):
        state, _ = program(state, plain.batch(number))
    return program, state


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_step_that_is_not_finite_changes_nothing_but_is_counted(step, value):
    program, before = step
    bad = plain.batch(2)
    bad["x"][0, 0] = value
    after, metrics = program(before, bad)
    for name in ("params", "optimizer", "objective"):
        pairs = zip(jax.tree.leaves(getattr(after, name)), jax.tree.leaves(getattr(before, name)), strict=True)
        assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs), name
    assert (int(before.step), int(after.step)) == (2, 3)
    assert not np.isfinite(metrics["loss"] * metrics["gradient_norm"])
    again, metrics = program(after, bad)
    assert (int(metrics["skipped_steps"]), int(metrics["skipped_in_a_row"])) == (2, 2)
    good, metrics = program(again, plain.batch(4))
    assert (int(metrics["skipped_steps"]), int(metrics["skipped_in_a_row"])) == (2, 0)
    assert jax.tree.map(int, good.skipped) == {"total": 2, "in_a_row": 0}
    assert np.any(good.params["layer"]["kernel"] != before.params["layer"]["kernel"])


def test_a_run_goes_on_after_some_steps_that_are_not_finite(tmp_path):
    plain.run(tmp_path, batches=without_number(1, 2, 4), max_nonfinite=3)
    rows = history(tmp_path / HISTORY)
    assert [row["skipped_steps"] for row in rows] == [0, 1, 2, 2, 3, 3]
    assert [row["loss"] is None for row in rows] == [False, True, True, False, True, False]


@pytest.mark.parametrize("steps", [6, 20])
def test_too_many_in_a_row_end_the_run_with_what_is_to_blame(tmp_path, steps):
    settings = {"steps": steps, "optimizer": lambda _: plain.optimizer(20), "max_nonfinite": 3}
    with pytest.raises(InputError) as caught:
        plain.run(tmp_path, batches=without_number(*range(3, 20)), **settings)
    last = min(6 + 2, steps)  # two more may run before the third is looked at
    assert str(caught.value) == (
        f"step {last}: loss or gradient were not finite in {last - 3} steps in a row (4 to {last}) and had no effect; "
        "the last one's loss is nan; not finite in its gradient: layer/bias (8), layer/kernel (128); "
        "in the parameters: nothing; in the batch's rows: x 3, x 5. "
        f"Look at batch {last - 1}, the first that train.batches gives with start={last - 1}; lower the learning rate; "
        "or allow more such steps with train.max_nonfinite."
    )
    with closing(Checkpoints(tmp_path / "checkpoints", read_only=True)) as checkpoints:
        params, step = checkpoints.restore_params(plain.Plain().abstract_params())
    assert step >= 4 and all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    plain.run(tmp_path, **settings)
    assert history(tmp_path / HISTORY)[-1]["skipped_steps"] > 0


def test_the_parameter_whose_gradient_is_not_finite_is_named(tmp_path):
    def loss(apply, params, state, batch, rng):
        return jnp.sum(jnp.sqrt(params["layer"]["bias"])) + jnp.sum(params["layer"]["kernel"]), (state, {})

    with pytest.raises(InputError, match=r"loss is -?\d.*not finite in its gradient: layer/bias \(8\); in the param"):
        plain.run(tmp_path, objective=loss, max_nonfinite=1)
