"""A progress bar on a terminal, a line now and then in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes how many more are done; the last line says how long it took."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    task = bar.add_task(what, total=total)
    start = time.perf_counter()
    state = {"done": 0, "shown": start}

    def advance(count: int) -> None:
        state["done"] += count
        bar.advance(task, count)
        now = time.perf_counter()
        if not console.is_terminal and now - state["shown"] > LINE_SECONDS:
            state["shown"] = now
            left = (total - state["done"]) * (now - start) / state["done"]
            console.print(f"{what}: {state['done']}/{total}, {left:.0f} s left", highlight=False)

    with bar:
        yield advance
    seconds = time.perf_counter() - start
    console.print(f"{what}: {state['done']} in {seconds:.1f} s ({state['done'] / seconds:.0f}/s)", highlight=False)
