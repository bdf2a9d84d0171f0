"""Batches made and put on the devices while the step before them runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any

from jaxret.errors import InputError

Rows = Any  # what `batches` gives
Placed = Any  # what `place` makes of it


def fed(batches: Iterator[Rows], place: Callable[[Rows], Placed], depth: int = 2) -> Feed:
    """`map(place, batches)`, worked out by a thread ahead of use: `with fed(batches, place) as feed: next(feed)`.

    Args:
      batches: used by the thread alone until the feed is closed.
      place: checks a batch and puts it on the devices; never called twice at a time.
      depth: batches that are placed before they are asked for, each in the devices' memory.

    Raises:
      InputError: `depth` is below 1.
    """
    if depth < 1:
        raise InputError("depth", f"{depth} places nothing ahead", "Give 1 or more.")
    return Feed(batches, place, depth)


class Feed(Iterator[Placed], AbstractContextManager):
    """What `fed` gives. The `next` that asks for a batch raises what went wrong with it, and so do all later ones."""

    def __init__(self, batches: Iterator[Rows], place: Callable[[Rows], Placed], depth: int):
        self._ready: SimpleQueue[tuple[Placed, BaseException | None]] = SimpleQueue()
        self._wanted, self._closed = threading.Semaphore(depth), False
        self._end: BaseException | None = None
        self._thread = threading.Thread(target=self._work, args=(batches, place), name="feed", daemon=True)
        self._thread.start()

    def __next__(self) -> Placed:
        if self._end is None:
            batch, self._end = self._ready.get()
        if self._end is not None:
            raise self._end
        self._wanted.release()
        return batch

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread, after the batch that it is working on, and forgets what is not used yet."""
        self._closed = True
        self._wanted.release()
        self._thread.join()
        self._ready, self._end = SimpleQueue(), self._end or StopIteration()

    def _work(self, batches: Iterator[Rows], place: Callable[[Rows], Placed]) -> None:
        try:
            while self._wanted.acquire() and not self._closed:
                self._ready.put((place(next(batches)), None))
        except BaseException as error:  # the consumer's to judge, whatever it is
            self._ready.put((None, error))
