import functools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxret.data.batches import Bucket, training_batches
from jaxret.data.tasks import Source
from jaxret.errors import InputError
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import Model
from jaxret.train.loop import train
from jaxret.train.objectives.contrastive import contrastive
from jaxret.train.optimizers import adamw
from jaxret.train.progress import HISTORY, history

STEPS, DEVICES = 8, 4


class Runs:
    """Starts tiny_run.py in processes with emulated devices of their own."""

    def __init__(self, root, folder, vocabulary, cache):
        self._root, self._settings = root, {"folder": str(folder), "vocabulary": str(vocabulary), "cache": str(cache)}
        self._started = []

    def start(self, workdir, *, devices=DEVICES, **settings):
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(self._root)}
        described = json.dumps({"workdir": str(workdir), "steps": STEPS} | self._settings | settings)
        self._started.append(
            subprocess.Popen(
                [sys.executable, self._root / "tests/train/tiny_run.py", described],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return self._started[-1]

    def finish(self, workdir, **settings):
        """Batch hashes by number of a run that is left in peace."""
        return taken(ended(self.start(workdir, **settings)))

    def close(self):
        for process in self._started:
            process.kill()
            process.wait()
            process.stdout.close()


def ended(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def taken(output):
    return {int(number): digest for number, digest in re.findall(r"^batch (\d+) (\w+)$", output, re.MULTILINE)}


def final(workdir):
    """All parameters of the last step, by name."""
    model = Model.load_description(workdir)
    with_mesh = model.abstract_params(device_mesh())
    params, step = Checkpoints(workdir / "checkpoints", read_only=True).restore_params(with_mesh)
    assert step == STEPS
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(params)}


def losses(workdir):
    rows = history(workdir / HISTORY)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def runs(root, beir_of_animals, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    tokenizer.save(folder / "vocabulary.model")
    starter = Runs(root, beir_of_animals, folder / "vocabulary.model", folder / "cache")
    yield starter
    starter.close()


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory):
    """A run that nothing disturbed, and its batches."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return workdir, runs.finish(workdir)


@pytest.mark.slow
def test_a_run_trains_and_keeps_the_last_two_steps_and_the_untrained_model(whole):
    workdir, batches = whole
    assert sorted(batches)[:STEPS] == list(range(STEPS)) and len(set(batches.values())) == len(batches)
    assert np.mean(losses(workdir)[-2:]) < np.mean(losses(workdir)[:2])
    assert sorted(os.listdir(workdir / "checkpoints")) == ["0", str(STEPS - 2), str(STEPS)]
    record = json.loads((workdir / "manifest.json").read_text())
    assert (record["steps"], record["global_batch_size"], record["num_devices"]) == (STEPS, 8, DEVICES)
    assert list((workdir / "tensorboard").glob("events*"))


def writing(step):
    """True from when the checkpoint of a step begins to be written."""
    return lambda workdir: any(workdir.glob(f"checkpoints/{step}*"))


def preparing(workdir):
    """True from when the training data begins to be prepared."""
    return (workdir / "examples").exists()


def logged(step, workdir):
    """True after a step was logged."""
    return any(row["step"] >= step for row in history(workdir / HISTORY))


def killed(process, workdir, moment):
    """Waits for the moment and kills; says whether the process was still alive."""
    while process.poll() is None and not moment(workdir):
        time.sleep(0.001)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    return alive, taken(process.communicate(timeout=60)[0])


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(runs, whole, tmp_path):
    workdir, seen = tmp_path / "run", []
    early = random.choice([writing(0), preparing])
    for moment in (early, writing(6)):
        alive, batches = killed(runs.start(workdir), workdir, moment)
        assert alive, "the run ended before it could be killed"
        seen.append(batches)
    seen.append(runs.finish(workdir))
    assert all(whole[1][number] == digest for batches in seen for number, digest in batches.items())
    resumed = [min(batches) for batches in seen if batches]
    assert resumed == sorted(resumed) and resumed[-1] in (4, 6), "the last run must continue, not start again"
    expected, found = final(whole[0]), final(workdir)
    assert expected.keys() == found.keys()
    for name in expected:
        assert expected[name].tobytes() == found[name].tobytes(), f"{name}; {early}"
    assert losses(workdir) == losses(whole[0])
    assert sorted(os.listdir(workdir / "checkpoints")) == ["0", str(STEPS - 2), str(STEPS)]


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
def test_a_run_that_changes_its_processes_and_devices_has_the_losses_of_one(runs, whole, tmp_path):
    """One process for two steps; two, in chunks, until one of them gets SIGTERM, which both obey; then one device."""
    workdir, address = tmp_path / "run", f"localhost:{free_port()}"
    runs.finish(workdir, steps=2, schedule=STEPS)
    processes = [
        runs.start(
            workdir,
            devices=DEVICES // 2,
            distributed={"coordinator_address": address, "num_processes": 2, "process_id": number},
            chunk_rows=3,
            pause=0.5,
        )
        for number in range(2)
    ]
    while all(process.poll() is None for process in processes) and not logged(3, workdir):
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    outputs = [ended(process) for process in processes]
    assert (stopped := re.search(r"SIGTERM: step (\d) is saved", outputs[0]))
    assert sorted(os.listdir(workdir / "checkpoints"))[-1] == stopped[1] < str(STEPS)
    batches = list(map(taken, outputs))
    assert batches[0].keys() & batches[1].keys() >= {2, 3}
    assert all(batches[0][number] != batches[1][number] for number in (2, 3))
    assert min(runs.finish(workdir, devices=1)) == int(stopped[1])
    np.testing.assert_allclose(losses(workdir), losses(whole[0]), rtol=1e-5, atol=1e-5)
    for (name, found), expected in zip(final(workdir).items(), final(whole[0]).values(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=name)


def settings(model, tmp_path, **changes):
    model.tokenizer.save(tmp_path / "vocabulary.model")
    whole = {
        "workdir": str(tmp_path / "run"),
        "retriever": model.config,
        "text": model.text,
        "vocabulary": str(tmp_path / "vocabulary.model"),
        "batches": lambda **_: pytest.fail("no data may be read"),
        "objective": lambda *_: pytest.fail("nothing may be compiled"),
        "optimizer": lambda steps: pytest.fail("nothing may be compiled"),
        "steps": 1,
        "global_batch_size": 8,
    }
    return whole | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, r"^train\.steps: 0 "),
        ({"global_batch_size": 12}, r"^train\.global_batch_size: 12 rows .* 8 devices.*multiple of 8"),
        ({"global_batch_size": 0}, r"^train\.global_batch_size: 0 "),
        ({"mesh_shape": (3, 1, 1)}, r"^mesh_shape: "),
        ({"vocabulary": "/nowhere/vocabulary.model"}, r"^/nowhere/vocabulary\.model: "),
    ],
)
def test_bad_settings_are_input_errors_before_anything_is_made(model, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(**settings(model, tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def test_a_buckets_batch_that_does_not_divide_is_an_input_error_before_any_data_is_read(
    model, beir_of_animals, tmp_path
):
    buckets = (Bucket(model.text.passage_max_len - 1, 16), Bucket(model.text.passage_max_len, 12))
    ones = dict.fromkeys(model.config.heads, 1.0)
    changes = {
        "batches": functools.partial(
            training_batches, sources=(Source(beir_of_animals),), train_group_size=1, length_buckets=buckets
        ),
        "objective": functools.partial(contrastive, temperature=ones, weight=ones),
        "optimizer": functools.partial(adamw, learning_rate=0.01),
    }
    with pytest.raises(InputError, match=r"^Bucket\.global_batch_size, of max_len \d+: 12 .* 8 devices.*multiple of 8"):
        train(**settings(model, tmp_path, **changes))
    assert not (tmp_path / "run" / "examples").exists()


def test_the_workdir_of_another_model_is_an_input_error(model, tmp_path):
    model.save_description(tmp_path / "run")
    text = type(model.text)(query_max_len=model.text.query_max_len + 1)
    with pytest.raises(InputError, match=rf"^{tmp_path}/run/retriever\.json: the workdir holds another model"):
        train(**settings(model, tmp_path, text=text))
