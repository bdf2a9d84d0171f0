"""One trainer: data, objective and optimiser in; a workdir with checkpoints out. The same workdir resumes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxret.data.pairs import PairConfig
from jaxret.data.text import TextConfig
from jaxret.errors import InputError
from jaxret.files import write_json
from jaxret.nn.cross_encoder import CrossEncoderConfig
from jaxret.nn.encoder import REMATS
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.layouts import Description
from jaxret.runtime.manifest import machine, manifest
from jaxret.runtime.mesh import batch_sharding, device_mesh, parameter_shardings
from jaxret.runtime.network import Network
from jaxret.train.objective import Loss, Objective, divided, objective_of
from jaxret.train.progress import reporter
from jaxret.train.start import begun, check_same_model, described, first_state
from jaxret.train.step import TrainState, jitted_step, state_shardings, train_step


def train(
    workdir: str,
    *,
    batches: Callable[..., Iterator[dict[str, np.ndarray]]],
    objective: Objective | Loss,
    optimizer: Callable[[int], optax.GradientTransformation],
    steps: int,
    global_batch_size: int,
    retriever: RetrieverConfig | CrossEncoderConfig | None = None,
    text: TextConfig | PairConfig | None = None,
    described: Callable[..., Description] = described,
    vocabulary: str = "",
    pretrained: str = "",
    seed: int = 0,
    mesh_shape: Sequence[int] = (-1, 1, 1),
    precision: str = "auto",
    attention: str = "auto",
    chunk_rows: int = 0,
    remat: str = "none",
    save_interval_steps: int = 1000,
    keep: int = 2,
    log_period: int = 10,
    facts: dict[str, Any] | None = None,
    dry_run: bool = False,
) -> Path:
    """Trains until `steps` and returns the workdir; continues from its latest checkpoint where there is one.

    Args:
      workdir: holds the model's description, `checkpoints/<step>`, `tensorboard/` and `manifest.json`.
      batches: `(tokenizer, text, global_batch_size=, seed=, cache_dir=, start=, process_index=, process_count=)`
        gives this process's rows of each global batch, from batch `start` on.
      objective: `(model, params, state, batch, rng) -> (loss, (state, metrics))`, or such a loss with parameters and
        state of its own.
      optimizer: `(steps) -> GradientTransformation`.
      steps: total number of steps.
      global_batch_size: rows of a batch over all devices and processes.
      retriever, text, vocabulary: sizes and heads, text template and tokeniser of a model that starts fresh; vocabulary
        size and skip-list are filled in.
      described: `(retriever, text, vocabulary, pretrained, precision, attention) -> Description` of the model: for a
        retriever by default; `start_cross_encoder.described` takes the configurations of a cross-encoder instead.
      pretrained: start from this checkpoint of any layout instead, a folder or "hf:org/name". The encoder, and what
        `retriever` and `text` leave open, are the checkpoint's; heads that it lacks start fresh.
      seed: of initialisation, data order and dropout.
      mesh_shape: sizes of `data, fsdp, tensor`; one may be -1.
      precision: "auto", "float32" or "bfloat16" products.
      attention: its implementation, see `runtime.attention`.
      chunk_rows: gradient caching: a device embeds so many rows at a time, and again in the backward pass, so that a
        large batch needs little memory; the same gradient. 0 embeds all at once.
      remat: what a layer keeps for the backward pass, which computes the rest again: "none" keeps all, "products" those
        of the parameters, "full" its input.
      save_interval_steps: steps between checkpoints.
      keep: checkpoints kept besides step 0.
      log_period: steps between reports.
      facts: what else the manifest should say.
      dry_run: check everything, prepare the data, and stop before anything is compiled.

    Raises:
      InputError: bad sizes, data, vocabulary or checkpoint, before anything is compiled.
    """
    mesh = device_mesh(mesh_shape)
    _check_sizes(steps, global_batch_size, mesh)
    _check_memory(chunk_rows, remat)
    description = described(retriever, text, vocabulary, pretrained, precision, attention)
    model = description.model
    folder, first_process = Path(workdir), jax.process_index() == 0
    check_same_model(folder, model)
    optimizer_ = optimizer(steps)
    trained = dataclasses.replace(model, chunk_rows=chunk_rows, remat=remat)
    step, abstract = step_program(trained, objective, optimizer_, seed, mesh)
    open_batches = _of_this_process(batches, model, global_batch_size, seed, folder / "examples")
    if dry_run:
        open_batches(start=0)
        return folder
    with closing(Checkpoints(folder / "checkpoints", keep=keep)) as checkpoints:
        steps_saved = checkpoints.steps()
        first = checkpoints.position(steps_saved[-1])["batches"] if steps_saved else 0
        stream = _checked(open_batches(start=first), objective_of(objective).check)
        first_ = functools.partial(first_state, description, objective, optimizer_, seed, abstract)
        state = _starting_state(checkpoints, first_, abstract)
        if first_process:
            model.save_description(folder)
            sizes = {"seed": seed, "steps": steps, "global_batch_size": global_batch_size, "first_step": first}
            write_json(folder / "manifest.json", manifest(**sizes, **machine(mesh), **(facts or {})))
        with reporter(folder / "tensorboard", first, steps, global_batch_size, active=first_process) as report:
            for number in range(first + 1, steps + 1):
                state, metrics = step(state, global_batch(next(stream), mesh))
                if report and (number % log_period == 0 or number == steps):
                    report.log(number, {name: float(value) for name, value in metrics.items()})
                if number % save_interval_steps == 0 or number == steps:
                    _save(checkpoints, number, state)
    return folder


def step_program(
    model: Network,
    objective: Objective | Loss,
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: jax.sharding.Mesh,
) -> tuple[Callable[[TrainState, Any], Any], TrainState]:
    """The jitted step of a run on a mesh, and its state as shapes with shardings."""
    whole = objective_of(objective)
    boxed = jax.eval_shape(lambda: whole.begun(model, model.boxed(seed), seed))
    params, state = parameter_shardings(boxed, mesh)
    shapes = jax.eval_shape(lambda: begun(model, whole, optimizer, seed, model.init(seed)))
    shardings = state_shardings(shapes, params, state, optimizer, mesh)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    step = functools.partial(train_step, apply=model.for_search(), objective=whole.loss, optimizer=optimizer, seed=seed)
    return jitted_step(step, shardings, mesh), abstract


def global_batch(local: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """This process's rows as its part of the global batch, on the devices."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in local.items()}


def _of_this_process(
    batches: Callable[..., Iterator[dict[str, np.ndarray]]], model: Network, rows: int, seed: int, cache_dir: Path
) -> Callable[..., Iterator[dict[str, np.ndarray]]]:
    """This process's rows of each global batch, as a function of the batch to start with."""
    return functools.partial(
        batches,
        tokenizer=model.tokenizer,
        text=model.text,
        global_batch_size=rows,
        seed=seed,
        cache_dir=cache_dir,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _checked(
    batches: Iterator[dict[str, np.ndarray]], check: Callable[[dict[str, np.ndarray]], None]
) -> Iterator[dict[str, np.ndarray]]:
    for rows in batches:
        check(rows)
        yield rows


def _starting_state(checkpoints: Checkpoints, first: Callable[[], TrainState], abstract: TrainState) -> TrainState:
    steps = checkpoints.steps()
    if not steps:
        state = first()
        _save(checkpoints, 0, state)
        return state
    params, added = divided(abstract.params)
    params, rest, _ = checkpoints.restore(steps[-1], params, dataclasses.replace(abstract, params=added))
    return dataclasses.replace(rest, params={**params, **rest.params})


def _save(checkpoints: Checkpoints, step: int, state: TrainState) -> None:
    params, added = divided(state.params)
    checkpoints.save(step, params, dataclasses.replace(state, params=added), {"batches": step})


def _check_memory(chunk_rows: int, remat: str) -> None:
    if chunk_rows < 0:
        raise InputError("train.chunk_rows", f"{chunk_rows} is not a number of rows", "Give 1 or more, or 0 for all.")
    if remat not in REMATS:
        raise InputError("train.remat", f"unknown {remat!r}", f"Choose one of {', '.join(REMATS)}.")


def _check_sizes(steps: int, global_batch_size: int, mesh: jax.sharding.Mesh) -> None:
    if steps < 1:
        raise InputError("train.steps", f"{steps} is not a number of steps", "Give 1 or more.")
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    if global_batch_size < 1 or global_batch_size % rows:
        problem = f"{global_batch_size} rows do not divide over {rows} devices (data x fsdp)"
        raise InputError("train.global_batch_size", problem, f"Give a multiple of {rows}.")
