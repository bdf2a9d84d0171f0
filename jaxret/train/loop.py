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
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.network import Network
from jaxret.train.feed import fed
from jaxret.train.nonfinite import Watch, diagnosis_program
from jaxret.train.objective import Loss, Objective, objective_of
from jaxret.train.profiling import Profile
from jaxret.train.program import global_batch, step_program
from jaxret.train.progress import reporter
from jaxret.train.run import Pace, Run
from jaxret.train.saving import starting_state
from jaxret.train.selection import Evaluation, check_metric
from jaxret.train.start import check_same_model, described, first_state
from jaxret.train.work import Work, work_of


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
    kept_rows: int = 0,
    remat: str = "none",
    unrolled: bool = False,
    save_interval_steps: int = 1000,
    keep: int = 2,
    log_period: int = 10,
    evaluate: Evaluation | None = None,
    evaluate_interval_steps: int = 0,
    best_metric: str = "",
    max_nonfinite: int = 10,
    profile_steps: Sequence[int] = (),
    facts: dict[str, Any] | None = None,
    dry_run: bool = False,
) -> Path:
    """Trains until `steps` and returns the workdir; continues from its latest whole checkpoint where there is one.

    SIGTERM and SIGINT (ctrl-C) let it finish its step and save; then SystemExit with code 0, or KeyboardInterrupt.

    Args:
      workdir: holds the model's description, `checkpoints/<step>`, `tensorboard/`, `manifest.json` and, where asked
        for, `best.json` and `profile/`.
      batches: `(tokenizer, text, global_batch_size=, seed=, cache_dir=, start=, process_index=, process_count=,
        devices=)` gives this process's rows of each global batch, from batch `start` on. It may make batches of other
        sizes too, which must divide over so many devices.
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
      kept_rows: of each text's rows on a device, so many are not embedded again, where there is memory for them.
      remat: what a layer keeps for the backward pass, which computes the rest again: "none" keeps all, "products" those
        of the parameters, "full" its input.
      unrolled: compile the layers one by one instead of one for all: minutes longer, and faster steps on TPUs.
      save_interval_steps: steps between checkpoints.
      keep: checkpoints kept besides step 0 and the best one.
      log_period: steps between reports.
      evaluate: `(model, params) -> {name: value}` of the parameters as they are saved, logged as `eval/<name>`; its
        `check(model)` comes before all else. None evaluates nothing.
      evaluate_interval_steps: steps between evaluations; 0 evaluates where it saves.
      best_metric: of `evaluate`: the checkpoint where it is greatest is kept, and named in `best.json`.
      max_nonfinite: a step whose loss or gradient is not finite changes nothing but is counted; so many in a row end
        the run.
      profile_steps: the first and the last step of a profile.
      facts: what else the manifest should say.
      dry_run: check everything, prepare the data, and stop before anything is compiled.

    Raises:
      InputError: bad sizes, data, vocabulary or checkpoint, before anything is compiled; or nothing but steps that are
        not finite.
    """
    mesh, folder, first_process = device_mesh(mesh_shape), Path(workdir), jax.process_index() == 0
    _check_sizes(steps, global_batch_size, mesh)
    _check_memory(chunk_rows, kept_rows, remat)
    pace = _pace(steps, save_interval_steps, log_period, evaluate_interval_steps, max_nonfinite)
    profile = Profile(folder / "profile", profile_steps)
    description = described(retriever, text, vocabulary, pretrained, precision, attention)
    model = description.model
    check_same_model(folder, model)
    _check_evaluation(evaluate, best_metric, model)
    optimizer_, objective_ = optimizer(steps), objective_of(objective)
    trained = dataclasses.replace(model, chunk_rows=chunk_rows, kept_rows=kept_rows, remat=remat, unrolled=unrolled)
    step, abstract = step_program(trained, objective, optimizer_, seed, mesh)
    watch = Watch(max_nonfinite, diagnosis_program(trained.for_search(), objective_.loss, seed, mesh))
    open_batches = _of_this_process(batches, model, mesh, global_batch_size, seed, folder / "examples")
    if dry_run:
        open_batches(start=0)
        return folder
    with closing(Checkpoints(folder / "checkpoints", keep=keep)) as checkpoints:
        saved = checkpoints.whole_step()
        position = {"batches": 0} if saved is None else checkpoints.position(saved)
        first = position["batches"]
        stream = open_batches(start=first)
        begun = functools.partial(first_state, description, objective, optimizer_, seed, abstract)
        state = starting_state(checkpoints, saved, begun, abstract)
        if first_process:
            model.save_description(folder)
            sizes = {"seed": seed, "steps": steps, "global_batch_size": global_batch_size, "first_step": first}
            write_json(folder / "manifest.json", manifest(**sizes, **machine(mesh), **(facts or {})))
        place = functools.partial(_placed, check=objective_.check, config=model.config, mesh=mesh)
        with (
            reporter(folder / "tensorboard", first, steps, active=first_process) as report,
            fed(stream, place) as feed,
        ):
            run = Run(folder, model, mesh, step, checkpoints, pace, watch, profile, evaluate, best_metric, report)
            run.go(state, feed, position)
    return folder


def _of_this_process(
    batches: Callable[..., Iterator[dict[str, np.ndarray]]],
    model: Network,
    mesh: jax.sharding.Mesh,
    rows: int,
    seed: int,
    cache_dir: Path,
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
        devices=_batch_devices(mesh),
    )


def _placed(
    rows: dict[str, np.ndarray], *, check: Callable[[dict[str, np.ndarray]], None], config: Any, mesh: jax.sharding.Mesh
) -> tuple[dict[str, jax.Array], Work]:
    """A batch on the devices, and the work in it; its size may be another than the last one's."""
    check(rows)
    work = work_of(rows, config)
    _check_rows("train.batches", int(work.examples), mesh)
    return global_batch(rows, mesh), work


def _check_memory(chunk_rows: int, kept_rows: int, remat: str) -> None:
    for name, rows in (("chunk_rows", chunk_rows), ("kept_rows", kept_rows)):
        if rows < 0:
            raise InputError(f"train.{name}", f"{rows} is not a number of rows", "Give 1 or more, or 0.")
    if kept_rows and not chunk_rows:
        problem = f"{kept_rows} rows, but all are kept where there are no chunks"
        raise InputError("train.kept_rows", problem, "Set train.chunk_rows too, or leave both.")
    if remat not in REMATS:
        raise InputError("train.remat", f"unknown {remat!r}", f"Choose one of {', '.join(REMATS)}.")


def _check_sizes(steps: int, global_batch_size: int, mesh: jax.sharding.Mesh) -> None:
    if steps < 1:
        raise InputError("train.steps", f"{steps} is not a number of steps", "Give 1 or more.")
    _check_rows("train.global_batch_size", global_batch_size, mesh)


def _batch_devices(mesh: jax.sharding.Mesh) -> int:
    """That the rows of a batch are divided over."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def _check_rows(setting: str, rows: int, mesh: jax.sharding.Mesh) -> None:
    devices = _batch_devices(mesh)
    if rows < 1 or rows % devices:
        problem = f"{rows} rows do not divide over {devices} devices (data x fsdp)"
        raise InputError(setting, problem, f"Give a multiple of {devices}.")


def _pace(steps: int, save: int, log: int, evaluate: int, max_nonfinite: int) -> Pace:
    for name, value in (("save_interval_steps", save), ("log_period", log), ("max_nonfinite", max_nonfinite)):
        if value < 1:
            raise InputError(f"train.{name}", f"{value} is not a number of steps", "Give 1 or more.")
    if evaluate < 0:
        raise InputError("train.evaluate_interval_steps", f"{evaluate}", "Give 1 or more, or 0 for every checkpoint.")
    return Pace(steps, save, log, evaluate or save)


def _check_evaluation(evaluate: Evaluation | None, best_metric: str, model: Network) -> None:
    if evaluate is None:
        if best_metric:
            raise InputError("train.best_metric", f"{best_metric!r} without an evaluation", "Bind train.evaluate.")
        return
    names = evaluate.check(model)
    if best_metric:
        check_metric(best_metric, names)
