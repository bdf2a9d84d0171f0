"""The one error that bad input raises: where it is, what is wrong, how to mend it."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """Bad input from the user. The command prints it as one line and exits with code 2.

    Args:
      place: a file, `file:line`, setting or argument.
      problem: what is wrong there, with the value that was found.
      fix: what to do about it, with the valid choices where there are any.
    """

    def __init__(self, place: str | Path, problem: str, fix: str):
        self.place, self.problem, self.fix = str(place), problem, fix
        super().__init__(f"{place}: {problem}. {fix}")
