"""A profile of chosen steps, for TensorBoard or Perfetto."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxret.errors import InputError


class Profile:
    """Traces the steps from a first to a last one; ends the trace when it is left.

    Args:
      folder: where the trace goes.
      steps: the first and the last step, or nothing.
    """

    def __init__(self, folder: Path, steps: Sequence[int] = ()):
        if steps and (len(steps) != 2 or not 1 <= steps[0] <= steps[1]):
            fix = "Give the first step and the last one, or nothing."
            raise InputError("train.profile_steps", f"{tuple(steps)} is no range of steps", fix)
        self._folder, self._steps, self._traces = folder, tuple(steps), False

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._traces:
            jax.profiler.stop_trace()
            self._traces = False

    def before(self, step: int) -> None:
        """To be called before each step."""
        if self._steps and self._steps[0] <= step <= self._steps[1] and not self._traces:
            jax.profiler.start_trace(str(self._folder))
            self._traces = True

    def after(self, step: int, outcome: Any) -> None:
        """To be called after each step with what it gave, which the end of the trace waits for."""
        if self._traces and step == self._steps[1]:
            jax.block_until_ready(outcome)
            self.__exit__()
