"""Signals that ask a run to end. It finishes its step, saves, and goes; a second signal acts at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

ASKING = (signal.SIGTERM, signal.SIGINT)
AGREED_EVERY = 10  # steps between two exchanges of the processes: each makes them wait for each other


class Interrupts:
    """Notes SIGTERM and SIGINT while it is entered; elsewhere than in the main thread it notes nothing."""

    def __init__(self) -> None:
        self._noted = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in ASKING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        # A handler that Python did not set is None, and cannot be set again.
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def asked(self, step: int) -> signal.Signals | None:
        """The signal that came, on this process or another, or None; of several processes at certain steps alone."""
        noted = self._noted
        if jax.process_count() > 1:
            if step % AGREED_EVERY:
                return None
            noted = int(multihost_utils.process_allgather(np.int32(noted)).max())
        return signal.Signals(noted) if noted else None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = number
        self.__exit__()


def left(asked: signal.Signals) -> BaseException:
    """What a run that was asked to end raises when it has saved: SIGTERM ends the program with code 0."""
    return KeyboardInterrupt() if asked == signal.SIGINT else SystemExit(0)
