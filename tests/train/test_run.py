import json
import signal
from contextlib import closing

import jax
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.mesh import device_mesh
from jaxret.train import run
from jaxret.train.program import step_program
from jaxret.train.progress import HISTORY, history
from jaxret.train.saving import starting_state
from tests.train import plain_model as plain


def final(workdir, step=6):
    """The whole state of a step, and its position."""
    _, abstract = step_program(plain.Plain(), plain.remembered(), plain.optimizer(6), 0, device_mesh())
    with closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        state = starting_state(checkpoints, step, lambda: pytest.fail("nothing is saved"), abstract)
        return jax.device_get((state, checkpoints.restore_params(plain.Plain().abstract_params(), step)[0]))


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), jax.tree_util.keystr(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    return plain.run(tmp_path_factory.mktemp("whole") / "run")


def test_what_the_compiler_needed_is_given_back_once(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(run, "give_back", lambda: given.append(True))
    plain.run(tmp_path / "run")
    assert len(given) == 1


def test_the_average_is_saved_as_the_model_and_the_trained_parameters_beside_it(whole):
    state, params = final(whole)
    assert int(state.step) == 6
    np.testing.assert_array_equal(params["layer"]["kernel"], state.optimizer.average["layer"]["kernel"])
    assert np.abs(params["layer"]["kernel"] - state.params["layer"]["kernel"]).max() > 1e-3
    assert np.any(state.objective["memory"] != 0)


class Scores:
    """An evaluation with the numbers that it is given, which remembers what it saw; sends signals in a step's."""

    def __init__(self, values, names=None, at=0, signals=()):
        self.values, self.names, self.at, self.signals, self.seen = values, names, at, signals, {}

    def check(self, model):
        assert isinstance(model, plain.Plain)
        return self.names

    def __call__(self, model, params):
        number = sorted(self.values)[len(self.seen)]
        self.seen[number] = jax.device_get(params)
        for one in self.signals if number == self.at else ():
            signal.raise_signal(one)
        return {"ndcg_at_10": self.values[number], "other": -1.0}


FLAT = dict.fromkeys(range(1, 7), 0.0)
EVERY = {"evaluate_interval_steps": 1}
BEST = EVERY | {"best_metric": "ndcg_at_10", "keep": 1}


@pytest.mark.parametrize(("one", "end"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_lets_the_step_end_and_saves(whole, tmp_path, one, end, capfd):
    before = signal.getsignal(one)
    with pytest.raises(end) as caught:
        plain.run(tmp_path, evaluate=Scores(FLAT, at=2, signals=[one]), **EVERY)
    assert signal.getsignal(one) is before
    assert one != signal.SIGTERM or caught.value.code == 0
    assert f"{one.name}: step 3 is saved" in capfd.readouterr().err
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["0", "2", "3"]
    plain.run(tmp_path)
    assert_same(final(tmp_path), final(whole))
    assert [row["loss"] for row in history(tmp_path / HISTORY)] == [row["loss"] for row in history(whole / HISTORY)]


def test_a_second_signal_acts_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        plain.run(tmp_path, evaluate=Scores(FLAT, at=3, signals=[signal.SIGINT] * 2), **EVERY)
    assert [row["step"] for row in history(tmp_path / HISTORY)] == [1, 2, 3]
    assert not (tmp_path / "checkpoints" / "4").exists()


def test_the_best_checkpoint_is_kept_and_named(tmp_path):
    scores = Scores({1: 0.2, 2: 0.5, 3: 0.5, 4: float("nan"), 5: 0.1, 6: 0.4})
    plain.run(tmp_path, evaluate=scores, **BEST)
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": 2, "metric": "ndcg_at_10", "value": 0.5}
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["0", "2", "6"]
    assert_same(scores.seen[2], final(tmp_path, 2)[1])
    logged = {row["step"]: (row["eval/ndcg_at_10"], row["eval/other"]) for row in history(tmp_path / HISTORY)}
    assert logged == {n: (None if value != value else value, -1.0) for n, value in scores.values.items()}


def test_the_best_is_remembered_and_nothing_is_evaluated_twice(tmp_path):
    first = Scores({1: 0.2, 2: 0.5, 3: 0.1}, at=3, signals=[signal.SIGTERM])
    second = Scores({4: 0.3, 5: 0.4, 6: 0.5})
    with pytest.raises(SystemExit):
        plain.run(tmp_path, evaluate=first, **BEST)
    assert int(final(tmp_path, 4)[0].step) == 4, "saved at once, and evaluated when the run continues"
    (tmp_path / "best.json").unlink()  # a run killed between the checkpoint and the file
    plain.run(tmp_path, evaluate=second, **BEST)
    assert list(first.seen) == [1, 2, 3] and list(second.seen) == [4, 5, 6]
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 2
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["0", "2", "6"]
    assert [row["eval/ndcg_at_10"] for row in history(tmp_path / HISTORY)] == [0.2, 0.5, 0.1, 0.3, 0.4, 0.5]
    plain.run(tmp_path, evaluate=Scores({}), **BEST)
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 2


def test_the_averaged_parameters_are_evaluated_where_checkpoints_are_saved(tmp_path):
    scores = Scores({2: 0.1, 4: 0.1, 6: 0.1})
    plain.run(tmp_path, evaluate=scores, keep=9)
    for step, params in scores.seen.items():
        assert_same(params, final(tmp_path, step)[1])
    assert not (tmp_path / "best.json").exists()


def test_an_unknown_metric_is_an_input_error(tmp_path):
    never = {"optimizer": lambda _: pytest.fail("nothing may be compiled")}
    with pytest.raises(InputError, match=r"train\.best_metric: unknown 'mrr'\. Choose one of ndcg"):
        plain.run(tmp_path, evaluate=Scores({}, ["ndcg"]), best_metric="mrr", **never)
    with pytest.raises(InputError, match=r"train\.best_metric: 'mrr' without an evaluation"):
        plain.run(tmp_path, best_metric="mrr", **never)
    with pytest.raises(InputError, match=r"train\.best_metric: unknown 'mrr'\. Choose one of ndcg_at_10, other"):
        plain.run(tmp_path, evaluate=Scores({2: 0.1}), best_metric="mrr")


def test_a_damaged_checkpoint_is_set_aside_and_the_run_goes_on_from_the_one_before(whole, tmp_path, caplog):
    plain.run(tmp_path, steps=4, optimizer=lambda _: plain.optimizer(6))
    file = next((tmp_path / "checkpoints" / "4" / "rest" / "d").iterdir())
    file.write_bytes(file.read_bytes()[:-1])
    plain.run(tmp_path)
    assert f"{file}: damaged" in caplog.text
    assert_same(final(tmp_path), final(whole))


def test_chosen_steps_are_profiled(tmp_path):
    plain.run(tmp_path, profile_steps=(2, 3))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_batch_of_a_size_of_its_own_must_divide_over_the_devices(tmp_path):
    def batches(**settings):
        return ({name: values[:6] for name, values in rows.items()} for rows in plain.batches(**settings))

    with pytest.raises(InputError, match=r"^train\.batches: 6 rows do not divide over 8 devices"):
        plain.run(tmp_path, batches=batches)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"profile_steps": (3, 2)}, r"^train\.profile_steps: \(3, 2\) is no range"),
        ({"profile_steps": (3,)}, r"^train\.profile_steps: \(3,\) is no range"),
        ({"max_nonfinite": 0}, r"^train\.max_nonfinite: 0 "),
        ({"save_interval_steps": 0}, r"^train\.save_interval_steps: 0 "),
        ({"log_period": 0}, r"^train\.log_period: 0 "),
        ({"evaluate_interval_steps": -1}, r"^train\.evaluate_interval_steps: -1"),
    ],
)
def test_bad_settings_are_input_errors_before_anything_is_made(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        plain.run(tmp_path / "run", optimizer=lambda _: pytest.fail("nothing may be compiled"), **settings)
    assert not (tmp_path / "run").exists()
