"""The steps of a run, and what happens between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax

from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.heap import give_back
from jaxret.runtime.network import Network
from jaxret.train.interrupts import Interrupts, left
from jaxret.train.nonfinite import LAG, Watch
from jaxret.train.profiling import Profile
from jaxret.train.progress import Reporter
from jaxret.train.saving import published, save
from jaxret.train.selection import FILE, Best, Evaluation, better
from jaxret.train.step import TrainState
from jaxret.train.work import Work


@dataclass(frozen=True)
class Pace:
    """When what happens, in steps; all of it after the last one too.

    Attributes:
      steps: the last one.
      save: from one checkpoint to the next.
      log: from one report to the next.
      evaluate: from one evaluation to the next.
    """

    steps: int
    save: int
    log: int
    evaluate: int

    def due(self, step: int, period: int) -> bool:
        """Whether what happens once in a period happens after a step."""
        return step % period == 0 or step == self.steps


@dataclass
class Run:
    """A run of a model from one step to the last.

    Attributes:
      workdir: where `best.json` goes.
      model: what is evaluated.
      mesh: where it trains.
      program: `(state, batch) -> (state, metrics)`.
      checkpoints: where states are saved.
      pace: when.
      watch: ends a run that does nothing any more.
      profile: of chosen steps.
      evaluate: `(model, params) -> metrics`, or None.
      best_metric: the metric whose best checkpoint is kept; "" keeps none.
      report: takes metrics, on the first process.
      best: the best checkpoint so far.
      evaluated: the last step that was evaluated.
      done: the work since the last report.
    """

    workdir: Path
    model: Network
    mesh: jax.sharding.Mesh
    program: Callable[[TrainState, Any], tuple[TrainState, Mapping[str, jax.Array]]]
    checkpoints: Checkpoints
    pace: Pace
    watch: Watch
    profile: Profile
    evaluate: Evaluation | None
    best_metric: str
    report: Reporter | None
    best: Best | None = None
    evaluated: int = 0
    done: Work = field(default_factory=Work)

    def go(self, state: TrainState, batches: Iterator[tuple[Any, Work]], position: Mapping[str, Any]) -> None:
        """Trains from a state and its position to the last step, with batches on the devices and the work in them.

        Raises:
          InputError: too many steps in a row were not finite, or there is no such metric.
          SystemExit, KeyboardInterrupt: the run was asked to end, and has saved.
        """
        first = position["batches"]
        self._remember(state, position)
        with Interrupts() as interrupts, self.profile:
            for number in range(first + 1, self.pace.steps + 1):
                self.profile.before(number)
                batch, work = next(batches)
                self.done += work
                state, metrics = self.program(state, batch)
                if number == first + 1:
                    give_back()  # what the compiler needed
                self.profile.after(number, metrics)
                self.watch.look(state, batch, metrics, LAG if number < self.pace.steps else 0)
                if self.pace.due(number, self.pace.log):
                    self._log(number, metrics)
                asked = interrupts.asked(number)
                self._keep(number, state, at_once=asked is not None)
                if asked:
                    if self.report:
                        self.report.say(f"{asked.name}: step {number} is saved; the same command continues from there")
                    raise left(asked)

    def _log(self, number: int, metrics: Mapping[str, jax.Array]) -> None:
        """Reports a step's metrics, and the work done since the last report."""
        if self.report:
            numbers = {name: float(value) for name, value in metrics.items()}
            self.report.log(number, numbers | self.done.shares(), self.done.rates(self.mesh.devices))
        self.done = Work()

    def _keep(self, number: int, state: TrainState, at_once: bool) -> None:
        """Evaluates and saves where it is due; a run that must end at once saves, and evaluates when it continues."""
        improved = not at_once and self._evaluates(number) and self._improves(number, state)
        if improved or at_once or self.pace.due(number, self.pace.save):
            position = {"evaluated": self.evaluated} | ({"best": asdict(self.best)} if self.best else {})
            save(self.checkpoints, number, state, position, background=not (improved or at_once))
        if improved:
            self._name_best()

    def _remember(self, state: TrainState, position: Mapping[str, Any]) -> None:
        """Takes up what the checkpoint knows of the best one, and makes up for an evaluation that it lacks."""
        first, self.evaluated = position["batches"], position.get("evaluated", 0)
        found = Best(**position["best"]) if "best" in position else None
        self.best = found if found and found.step in self.checkpoints.steps() else None
        if first and self._evaluates(first) and self.evaluated != first:
            self._improves(first, state)
        self._name_best()

    def _evaluates(self, number: int) -> bool:
        return self.evaluate is not None and self.pace.due(number, self.pace.evaluate)

    def _improves(self, number: int, state: TrainState) -> bool:
        """Evaluates; whether it is the best step so far, which then stays when it is saved."""
        assert self.evaluate is not None
        start = time.perf_counter()
        metrics = self.evaluate(self.model, published(state))
        self.evaluated = number
        if self.report:
            self.report.evaluated(number, metrics, time.perf_counter() - start)
        found = better(self.best, number, self.best_metric, metrics)
        if found:
            self.best = found
            self.checkpoints.pinned.add(number)
        return found is not None

    def _name_best(self) -> None:
        """Names the best checkpoint, which is on the disk by now, and lets go of the others."""
        if jax.process_index() == 0:
            if self.best:
                self.best.write(self.workdir)
            else:
                (self.workdir / FILE).unlink(missing_ok=True)
        self.checkpoints.pinned.clear()
        self.checkpoints.pinned.update({0, self.best.step} if self.best else {0})
