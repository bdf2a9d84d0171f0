"""What a run shows while it works: a bar on a terminal, lines in a pipe, scalars for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter:
    """Takes the metrics of logged steps; shows them and writes them as TensorBoard scalars."""

    def __init__(self, folder: Path, first: int, last: int, batch_size: int, console: Console):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first + 1)
        self._console, self._last, self._batch_size = console, last, batch_size
        self._bar = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("train", total=last, completed=first, numbers="")
        self._mark = (first, time.perf_counter())

    def __enter__(self) -> Reporter:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._writer.close()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows and writes the metrics of one step; the rate is over the steps since the last call."""
        before, then = self._mark
        now = time.perf_counter()
        rate = (step - before) * self._batch_size / max(now - then, 1e-9)
        self._mark = (step, now)
        for name, value in metrics.items():
            self._writer.add_scalar(f"train/{name}", value, step)
        self._writer.add_scalar("train/examples_per_second", rate, step)
        self._writer.flush()
        numbers = f"loss {metrics['loss']:.3f}  {rate:.0f} examples/s"
        self._bar.update(self._task, completed=step, numbers=numbers)
        if not self._console.is_terminal:
            left = (self._last - step) * self._batch_size / max(rate, 1e-9)
            self._console.print(f"step {step}/{self._last}  {numbers}  {left:.0f} s left", highlight=False)


@contextmanager
def reporter(folder: Path, first: int, last: int, batch_size: int, *, active: bool) -> Iterator[Reporter | None]:
    """A Reporter on the first process, None on the others."""
    if not active:
        yield None
        return
    with Reporter(folder, first, last, batch_size, Console(stderr=True)) as result:
        yield result
