"""Plain, in chunks, in tiles, on any mesh, by two processes, resumed elsewhere: one loss, one gradient, one state.

With dropout on, uneven chunks, and every objective.
"""

import functools
import json
import os
import pickle
import subprocess
import sys
from contextlib import closing

import jax
import numpy as np
import pytest

from jaxret.runtime.checkpoints import Checkpoints
from jaxret.train.saving import save, starting_state
from tests.train.objectives import pretraining as tiny
from tests.train.objectives.cases import CASES, CHUNK_ROWS, PLAIN
from tests.train.objectives.steps import assert_same, beginning, named, placed, program, stepped
from tests.train.test_loop import free_port

LARGE = ("comparisons", "tiled", "memory")


class Steps:
    """The cases, their first states, and programs, each made once."""

    def __init__(self, model, speaker, random_params):
        self._made = model, speaker
        self.case = functools.cache(lambda name: CASES[name](model, speaker))
        self.beginning = functools.cache(lambda name: beginning(self.case(name), random_params))
        self.program = functools.cache(lambda name, shape: program(self.case(name), shape, CHUNK_ROWS))
        self.expected = functools.cache(self._expected)

    def _expected(self, name):
        """What the plain steps find on one device."""
        case = PLAIN.get(name, CASES[name])(*self._made)
        return self._found(name, case, program(case))

    def found(self, name, shape):
        """What the steps find in chunks on a mesh."""
        return self._found(name, self.case(name), self.program(name, shape))

    def _found(self, name, case, program):
        return named(program, *stepped(program, placed(self.beginning(name), program.abstract), case.batches))


@pytest.fixture(scope="module")
def folder(model, random_params, tmp_path_factory):
    """With the description of the model, and a language model."""
    found = tmp_path_factory.mktemp("equality")
    model.save_description(found)
    tiny.speaker(model, random_params, found / "speaker")
    return found


@pytest.fixture(scope="module")
def steps(folder, model, random_params):
    return Steps(model, str(folder / "speaker"), random_params)


def marked(name, shape):
    return pytest.param(name, shape, marks=pytest.mark.slow if name in LARGE else ())


@pytest.mark.parametrize(("name", "shape"), [marked(name, shape) for name in CASES for shape in ((8, 1, 1), (1, 4, 2))])
def test_chunks_tiles_and_meshes_change_nothing(steps, name, shape):
    """On 2x2x2 the two processes run."""
    assert_same(steps.found(name, shape), steps.expected(name), steps.case(name))


def started(root, folder, number, address):
    """One of two processes with four devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    settings = {"coordinator_address": address, "num_processes": 2, "process_id": number}
    with (folder / f"{number}.log").open("w") as log:
        return subprocess.Popen(
            [
                sys.executable,
                root / "tests/train/objectives/two_processes.py",
                json.dumps({"folder": str(folder), "shape": (2, 2, 2), "distributed": settings}),
            ],
            env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(root)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.slow
def test_two_processes_change_nothing(steps, root, folder):
    (folder / "begun.pickle").write_bytes(pickle.dumps({name: steps.beginning(name) for name in CASES}))
    address = f"localhost:{free_port()}"
    processes = [started(root, folder, number, address) for number in range(2)]
    try:
        for name in CASES:
            steps.expected(name)
        for number, process in enumerate(processes):
            assert process.wait(timeout=600) == 0, (folder / f"{number}.log").read_text()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for number in range(2):
        with np.load(folder / f"{number}.npz") as arrays:
            for name in CASES:
                found = {
                    place.removeprefix(f"{name}/"): x for place, x in arrays.items() if place.startswith(f"{name}/")
                }
                assert_same(found, steps.expected(name), steps.case(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["memory", "context"])
def test_a_step_on_another_mesh_goes_on_from_what_was_saved(steps, name, tmp_path):
    """With memories, running statistics, turns of the sides and an average of the parameters."""
    case, before = steps.case(name), steps.program(name, (8, 1, 1))
    after = steps.program(name, (1, 4, 2))
    state, metrics = stepped(before, placed(steps.beginning(name), before.abstract), case.batches[:1])
    with closing(Checkpoints(tmp_path)) as checkpoints:
        save(checkpoints, 1, state)
        state = starting_state(checkpoints, 1, lambda: pytest.fail("it starts anew"), after.abstract)
    state, more = stepped(after, state, case.batches[1:])
    assert_same(named(after, state, jax.device_get([*metrics, *more])), steps.expected(name), case)
