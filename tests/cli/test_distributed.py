"""Commands run by two processes, beside one."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from jaxret.search import corpus


@pytest.fixture
def processes(root, tmp_path):
    """Runs a command in one process or several, each in a folder of its own; their exit codes and outputs.

    Each has one device, since batches of queries on several have other shapes, and round otherwise.
    """
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"

    def begun(arguments, count, number, environment):
        place = tmp_path / f"{number} of {count}"
        place.mkdir()
        command = [sys.executable, "-m", "jaxret", *map(str, arguments), *["--distributed"] * (count > 1)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment |= {"PYTHONPATH": str(root), "XLA_FLAGS": flags}
        return subprocess.Popen(command, env=os.environ | environment, cwd=place, **pipes)

    def run(*commands):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(len(commands))}
        started = [
            begun(command, len(commands), number, {**job, "JAX_PROCESS_ID": str(number)})
            for number, command in enumerate(commands)
        ]
        ended = [(process, *process.communicate(timeout=240)) for process in started]
        return [(process.returncode, without_gloo(out), err) for process, out, err in ended]

    return run


def without_gloo(out):
    """What a process printed itself; a library says on standard output that it has connected processes."""
    return "".join(line for line in out.splitlines(keepends=True) if not line.startswith("[Gloo]"))


@pytest.fixture(scope="module")
def index(trained, beir_of_animals, tmp_path_factory):
    """An index in several shards."""
    from jaxret.cli.index import index

    folder = tmp_path_factory.mktemp("sharded") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "SHARD_DOCUMENTS", 3)
        index(trained, beir_of_animals, folder, nbits=2)
    return folder


def test_two_processes_write_the_run_of_one(processes, index, beir_of_animals, tmp_path):
    """The other modes are among what two processes evaluate."""
    command = ("search", "--index", index, "--mode", "multi_vector", "--k", 20, "--queries", beir_of_animals)
    command = (*command, "--split", "train", "--memory_budget_gb", 4, "--output", "run.trec")
    ended = [*processes(command), *processes(command, command)]
    assert [code for code, _, _ in ended] == [0, 0, 0], ended
    one, two = ((tmp_path / place / "run.trec").read_bytes() for place in ("0 of 1", "0 of 2"))
    assert one == two and one.count(b"\n") == 20 * 32
    assert (tmp_path / "0 of 2/run.trec.manifest.json").exists() and ended[1][1] == "run.trec: 32 queries\n"
    assert not list((tmp_path / "1 of 2").iterdir()) and ended[2][1] == ""


def test_two_processes_answer_a_question_once(processes, index):
    command = ("search", "the hen dreams", "--index", index, "--k", 2)
    one, first, second = *processes(command), *processes(command, command)
    assert one[0] == first[0] == second[0] == 0, (one, first, second)
    assert first[1] == one[1] and "2. " in one[1] and second[1] == ""


def test_two_processes_evaluate_as_one_does(processes, trained, index, beir_of_animals, tmp_path):
    systems = "bm25,dense,lexical,multi_vector,fusion,reranked,hybrid"
    command = ("evaluate", "--model", trained, "--data", beir_of_animals, "--split", "train", "--systems", systems)
    command = (*command, "--vectors", index / "vectors", "--hybrid_depth", "20,10", "--k", 10, "--output", "results")
    ended = [*processes(command), *processes(command, command)]
    assert [code for code, _, _ in ended] == [0, 0, 0], ended
    runs = sorted(path.name for path in (tmp_path / "0 of 1/results/runs").iterdir())
    assert runs == sorted(f"{system}.trec" for system in systems.split(","))
    for name in (*(f"runs/{run}" for run in runs), "metrics.json"):
        one, two = ((tmp_path / place / "results" / name).read_bytes() for place in ("0 of 1", "0 of 2"))
        assert one == two, name
    assert not list((tmp_path / "1 of 2").iterdir()) and ended[2][1] == ""


def assert_ended(failed, other, codes, message, seconds):
    assert (failed[0], other[0]) == codes and failed[1] == other[1] == "", (failed, other)
    assert message in other[2]
    assert seconds < 60, "nobody waited for a connection to time out"


def test_an_error_of_one_process_ends_the_other(processes, index, tmp_path):
    begun = time.perf_counter()
    failed, other = processes(*(("search", "a hen", "--index", folder) for folder in (tmp_path / "none", index)))
    problem = f"{tmp_path / 'none'}: no such folder. Check the path."
    assert f"jaxret: {problem}\n" in failed[2]
    message = f"jaxret: --distributed: process 0 has failed: {problem} Its own messages say more; mend that"
    assert_ended(failed, other, (2, 2), message, time.perf_counter() - begun)


PLAIN = """
from __gin__ import dynamic_registration
from jaxret.train import loop
from tests.train import plain_model
loop.train.workdir = "{workdir}"
loop.train.batches = @plain_model.failing_batches
loop.train.described = @plain_model.described
loop.train.objective = @plain_model.remembered()
loop.train.optimizer = @plain_model.optimizer
loop.train.steps = 6
loop.train.global_batch_size = 8
plain_model.failing_batches.failing = 1
plain_model.failing_batches.killed = {killed}
"""


@pytest.mark.parametrize(
    ("killed", "codes", "message"),
    [
        (
            False,
            (1, 2),
            "jaxret: --distributed: process 1 has failed: RuntimeError: no batch. Its own messages say more",
        ),
        (True, (-signal.SIGKILL, 1), "Connection closed by peer"),
    ],
)
def test_an_error_in_the_midst_of_training_ends_the_other(processes, tmp_path, killed, codes, message):
    """Which waits for a batch, or for the one that was killed to say goodbye."""
    (tmp_path / "plain.gin").write_text(PLAIN.format(workdir=tmp_path / "run", killed=killed))
    begun, command = time.perf_counter(), ("train", f"--gin_file={tmp_path / 'plain.gin'}")
    other, failed = processes(command, command)
    assert_ended(failed, other, codes, message, time.perf_counter() - begun)


@pytest.mark.parametrize("mode", ["plaid", "bm25"])
def test_what_is_searched_by_one_process_is_refused(processes, index, mode):
    command = ("search", "a hen", "--index", index, "--mode", mode)
    for code, _, err in processes(command, command):
        assert code == 2 and f"jaxret: --distributed: {mode} is searched by one process. Leave the option out" in err


def test_options_that_do_not_fit_several_processes(jaxret, trained, beir_of_animals, index, tmp_path):
    code, _, err = jaxret("search", "--index", index, "--distributed")
    assert code == 2 and "--distributed: one process alone has a prompt. Give a question, or --queries." in err
    common = (
        "evaluate",
        "--data",
        beir_of_animals,
        "--split",
        "train",
        "--k",
        5,
        "--output",
        tmp_path,
        "--distributed",
    )
    for more in (("--model", trained), ("--systems", "bm25", "--vectors", index / "vectors")):
        code, _, err = jaxret(*common, *more)
        assert code == 2 and "--distributed: shares the search in encoded --vectors, and there is none" in err
