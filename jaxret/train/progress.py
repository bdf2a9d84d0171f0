"""What a run shows while it works: a bar on a terminal, lines in a pipe; scalars in training.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxret.files import atomic

HISTORY = "training.jsonl"


def history(path: str | Path) -> list[dict[str, Any]]:
    """The logged steps of a training.jsonl, each once with all that was logged of it, ascending; empty without a file.

    A line that a killed run left unfinished is passed over. A metric that was not finite is None.
    """
    if not Path(path).exists():
        return []
    rows: dict[int, dict[str, Any]] = {}
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows[row["step"]] = rows.get(row["step"], {}) | row
    return [rows[step] for step in sorted(rows)]


class Reporter:
    """Takes the metrics of logged steps; shows them and writes them as TensorBoard scalars and lines of training.jsonl.

    Args:
      folder: TensorBoard's; training.jsonl lies beside it.
      first: the step that the run starts from. What an earlier run logged after it is dropped.
      last: the step that it goes to.
      console: where to show the progress.
    """

    def __init__(self, folder: Path, first: int, last: int, console: Console):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first + 1)
        self._history = folder.parent / HISTORY
        kept = [row for row in history(self._history) if row["step"] <= first]
        with atomic(self._history) as file:
            file.writelines(map(_line, kept))
        self._console, self._last = console, last
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

    def log(self, step: int, metrics: Mapping[str, float], work: Mapping[str, float]) -> None:
        """Shows and writes the metrics of one step, and rates.

        Args:
          step: its number.
          metrics: by name.
          work: since the last call, by the name of what it is when divided by the seconds since then.
        """
        before, then = self._mark
        now = time.perf_counter()
        seconds = max(now - then, 1e-9)
        self._mark = (step, now)
        rates = {name: amount / seconds for name, amount in work.items()}
        self._write(step, {**metrics, **rates}, "train/")
        numbers = f"loss {metrics['loss']:.3f}  {rates['examples_per_second']:.0f} examples/s"
        self._bar.update(self._task, completed=step, numbers=numbers)
        if not self._console.is_terminal:
            left = (self._last - step) * seconds / max(step - before, 1)
            self.say(f"step {step}/{self._last}  {numbers}  {left:.0f} s left")

    def evaluated(self, step: int, metrics: Mapping[str, float], seconds: float) -> None:
        """Shows and writes what an evaluation found as `eval/<name>`; its seconds do not count for the rate."""
        self._write(step, {f"eval/{name}": value for name, value in metrics.items()}, "")
        before, then = self._mark
        self._mark = (before, then + seconds)
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self.say(f"step {step}/{self._last}  {numbers}  {seconds:.0f} s")

    def say(self, text: str) -> None:
        """Shows a line."""
        self._console.print(text, highlight=False)

    def _write(self, step: int, scalars: Mapping[str, float], prefix: str) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(f"{prefix}{name}", value, step)
        self._writer.flush()
        with self._history.open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, **scalars}))


@contextmanager
def reporter(folder: Path, first: int, last: int, *, active: bool) -> Iterator[Reporter | None]:
    """A Reporter on the first process, None on the others."""
    if not active:
        yield None
        return
    with Reporter(folder, first, last, Console(stderr=True)) as result:
        yield result


def _line(row: Mapping[str, Any]) -> str:
    """One line of JSON, which has no NaN: null stands for what is not finite."""
    finite = {name: value if value is None or math.isfinite(value) else None for name, value in row.items()}
    return json.dumps(finite) + "\n"
