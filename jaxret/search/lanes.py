"""Threads that take items in turn, each working on its own while the next is read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

import jax

Item = TypeVar("Item")
Result = TypeVar("Result")


class CompiledOnce(Generic[Result]):
    """A jitted function that several lanes call: those that meet a new shape at once compile it once."""

    def __init__(self, function: Callable[..., Result]):
        self._function, self._compiling, self._compiled = function, threading.Lock(), set[Any]()

    def __call__(self, *args: Any) -> Result:
        """What the function makes of its arguments."""
        shapes = tuple(x.shape for x in jax.tree.leaves(args))
        if shapes in self._compiled:
            return self._function(*args)
        with self._compiling:
            made = self._function(*args)
            self._compiled.add(shapes)
        return made


def in_lanes(
    count: int, makers: Iterator[Callable[[], Item]], lane: Callable[[Iterator[Item]], Result]
) -> list[Result]:
    """What each of several threads did with the items that it took.

    An error in one lane, or ctrl-C here, ends the others after the item that they have.

    Args:
      count: of the lanes.
      makers: of the items, taken in their order by one lane at a time; each lane makes its own.
      lane: `(its items) -> result`.
    """
    taking, stopped = threading.Lock(), threading.Event()

    def taken() -> Iterator[Item]:
        while not stopped.is_set():
            with taking:
                made = next(makers, None)
            if made is None:
                return
            item = [made()]
            del made  # and what it was made from
            yield item.pop()

    if count == 1:
        return [lane(taken())]  # no thread: starting one takes as long as a small search
    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(lane, taken()) for _ in range(count)]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
            return [one.result() for one in running]
        finally:
            stopped.set()
