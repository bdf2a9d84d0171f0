"""The smallest model that the trainer takes: least squares, compiled in an instant."""

import json
import os
import signal
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxret.runtime.layouts import Description
from jaxret.runtime.network import abstract
from jaxret.train.averages import averaged
from jaxret.train.loop import train
from jaxret.train.objective import Objective
from jaxret.train.optimizers import adamw

ROWS, INPUTS, OUTPUTS, MEMORIES = 8, 16, 8, 24


@dataclass(frozen=True)
class Plain:
    """`x @ kernel + bias`."""

    chunk_rows: int = 0
    kept_rows: int = 0
    remat: str = "none"
    unrolled: bool = False
    config: Any = None
    text: Any = None
    origin: Any = None
    file: ClassVar[str] = "plain.json"

    @property
    def tokenizer(self):
        return SimpleNamespace(fingerprint="none")

    def for_search(self):
        return lambda params, x: x @ params["layer"]["kernel"] + params["layer"]["bias"][None]

    def boxed(self, seed):
        kernel = jax.random.normal(jax.random.key(seed), (INPUTS, OUTPUTS))
        kernel = nn.LogicallyPartitioned(kernel, ("width", "mlp"))
        return {"layer": {"kernel": kernel, "bias": nn.LogicallyPartitioned(jnp.zeros(OUTPUTS), ("mlp",))}}

    def init(self, seed):
        return nn.meta.unbox(self.boxed(seed))

    def abstract_params(self, mesh=None, dtype=jnp.float32):
        return abstract(self.boxed, mesh, dtype)

    def save_description(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.file).write_text(json.dumps("plain"))

    @classmethod
    def load_description(cls, folder):
        return cls()


def batch(number):
    random = np.random.default_rng(number)
    return {"x": random.normal(size=(ROWS, INPUTS)).astype(np.float32), "row": np.full(ROWS, number, np.int32)}


def batches(*, start, process_index, process_count, **_):
    rows = slice(process_index * ROWS // process_count, (process_index + 1) * ROWS // process_count)
    number = start
    while True:
        yield {name: values[rows] for name, values in batch(number).items()}
        number += 1


def failing_batches(*, process_index, failing, killed, **settings):
    """Two batches; then one process has none, for which the others must not wait, or is killed."""
    for number, rows in enumerate(batches(process_index=process_index, **settings)):
        if number == 2 and process_index == failing:
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("no batch\nany more")
        if number == 2 and not killed:
            time.sleep(600)
        yield rows


def described(*_):
    return Description(Plain())


def remembered() -> Objective:
    """Regression against a noisy target and the rows of earlier batches, which it remembers."""

    def init(model, params, key):
        return {}, {"memory": nn.LogicallyPartitioned(jnp.zeros((MEMORIES, INPUTS)), ("memories", None))}

    def loss(apply, params, state, batch, rng):
        target = jnp.tanh(batch["x"][:, :OUTPUTS]) + 0.1 * jax.random.normal(rng, (ROWS, OUTPUTS))
        value = jnp.mean(jnp.square(apply(params, batch["x"]) - target))
        value += 0.1 * jnp.mean(jnp.square(apply(params, state["memory"])))
        memory = jnp.concatenate([batch["x"], state["memory"]])[:MEMORIES]
        return value, ({"memory": memory}, {})

    return Objective(loss, init)


def optimizer(steps):
    return averaged(steps, optimizer=lambda steps: adamw(steps, learning_rate=0.02), decay=0.9)


def run(workdir, **settings):
    """Trains the plain model; 6 steps, every second one saved, unless the settings say otherwise."""
    whole = {
        "batches": batches,
        "objective": remembered(),
        "optimizer": optimizer,
        "described": described,
        "steps": 6,
        "global_batch_size": ROWS,
        "save_interval_steps": 2,
        "log_period": 1,
    }
    return train(str(workdir), **(whole | settings))
