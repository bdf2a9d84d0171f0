"""Trains with a memory bank, a momentum encoder and an average of the parameters, and kills the training many times.

`python killed_run.py '{"workdir": ..., "vocabulary": ..., "cache": ..., "kills": 20, "seed": 0}'` prints the steps
that were saved at each kill, and at the end the hash of the state. Each training is a fork, so that it starts quickly.
"""

import gc
import hashlib
import json
import os
import random
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import jax
import numpy as np

from jaxret.data.text import TextConfig
from jaxret.nn.config import EncoderConfig
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import Model
from jaxret.train.averages import averaged
from jaxret.train.loop import train
from jaxret.train.objectives.memory import remembering
from jaxret.train.optimizers import adamw
from jaxret.train.program import step_program
from jaxret.train.saving import starting_state

STEPS, ROWS, SEED = 150, 8, 5
ENCODER = EncoderConfig(vocab_size=0, width=16, num_layers=1, num_heads=2, mlp_width=12, dropout=0.1)
OBJECTIVE = remembering(size=64, temperature=0.5, momentum=0.9)


def optimizer(steps):
    return averaged(steps, optimizer=lambda steps: adamw(steps, learning_rate=0.01), decay=0.9)


def batches(*, start, tokenizer, **_):
    for number in range(start, STEPS):
        draw = np.random.default_rng(number)
        ids = draw.integers(7, tokenizer.size, (ROWS, 16)).astype(np.int32)
        keys = draw.integers(0, 100, (ROWS, 1)).astype(np.int32)
        yield {"query": ids[:, :6], "passage": ids[:, None, 6:], "passage_key": keys, "positive_keys": keys}


def trained(workdir, vocabulary, save_interval_steps):
    train(
        str(workdir),
        retriever=RetrieverConfig(ENCODER, heads=("dense",), dense_layers=(8,)),
        text=TextConfig(query_max_len=6, passage_max_len=10),
        vocabulary=vocabulary,
        batches=batches,
        objective=OBJECTIVE,
        optimizer=optimizer,
        steps=STEPS,
        global_batch_size=ROWS,
        seed=SEED,
        save_interval_steps=save_interval_steps,
        log_period=1,
    )


def forked(function, *arguments):
    """A process that calls a function."""
    process = os.fork()
    if process:
        return process
    gc.disable()  # most that it would look through came with the imports: a twentieth of the time
    try:
        function(*arguments)
        sys.stdout.flush()
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def ended(process):
    """Waits for a process; how it ended."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed(process, history, draw):
    """Kills a training at a random moment, of its start or of its steps."""
    seen = history.stat().st_size if history.exists() else 0
    if draw.random() < 0.2:
        time.sleep(draw.uniform(0, 2))
    else:
        while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if history.exists() and history.stat().st_size > seen:
                break
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.4))
    os.kill(process, signal.SIGKILL)
    return ended(process) == -signal.SIGKILL


def digest(workdir):
    """Prints the hash of all that the last step saved."""
    model = Model.load_description(workdir)
    _, abstract = step_program(model, OBJECTIVE, optimizer(STEPS), SEED, device_mesh())
    with closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        state = starting_state(checkpoints, STEPS, lambda: sys.exit("no step"), abstract)
        published, _ = checkpoints.restore_params(model.abstract_params(), STEPS)
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path((state, published)):
        found.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    print(f"state {found.hexdigest()}")


def main(workdir, vocabulary, cache, kills, seed):
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    workdir, draw = Path(workdir), random.Random(seed)
    for number in range(kills):
        if not killed(forked(trained, workdir, vocabulary, 1), workdir / "training.jsonl", draw):
            sys.exit(f"the training ended before kill {number}")
        steps = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()]
        print(f"killed with steps {sorted(steps)}", flush=True)
    for function, *arguments in ((trained, workdir, vocabulary, 50), (digest, workdir)):
        if ended(forked(function, *arguments)):
            sys.exit(f"{function.__name__} failed")


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
