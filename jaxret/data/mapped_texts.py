"""Many texts in one file, each read when it is asked for: a list of them would be held in memory."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import SupportsIndex, overload

import numpy as np

_ENDS = np.dtype("<i8")


@contextmanager
def texts_written(path: str | Path) -> Iterator[Callable[[str], object]]:
    """Gives a function that appends a text; at the end `mapped_texts(path)` has them. Texts need to be valid UTF-8."""
    end = 0
    with open(path, "wb") as texts, open(_ends(path), "wb") as ends:

        def append(text: str) -> None:
            nonlocal end
            end += texts.write(text.encode())
            ends.write(end.to_bytes(8, "little"))

        yield append


class LazyTexts(Sequence[str]):
    """A sequence of texts, each made when it is asked for.

    Args:
      count: how many there are.
      text_at: gives the text at a place from 0 to count - 1.
    """

    def __init__(self, count: int, text_at: Callable[[int], str]):
        self._count, self._text_at = count, text_at

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: SupportsIndex | slice) -> str | list[str]:
        """One text, or the list of a slice."""
        if isinstance(place, slice):
            return [self._text_at(one) for one in range(*place.indices(self._count))]
        return self._text_at(range(self._count)[place])


def mapped_texts(path: str | Path) -> LazyTexts:
    """The texts of a file that `texts_written` made; none of it stays in this process."""
    ends, descriptor = mapped(_ends(path), _ENDS), os.open(path, os.O_RDONLY)

    def text_at(place: int) -> str:
        begin, end = int(ends[place - 1]) if place else 0, int(ends[place])
        return os.pread(descriptor, end - begin, begin).decode()

    weakref.finalize(text_at, os.close, descriptor)
    return LazyTexts(len(ends), text_at)


def mapped(path: str | Path, dtype: np.dtype | type) -> np.ndarray:
    """A file of numbers as an array that is read when it is looked at; its pages are the system's to keep or drop."""
    with open(path, "rb") as file:
        empty = not file.seek(0, 2)
        return np.frombuffer(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype)


def _ends(path: str | Path) -> Path:
    return Path(f"{path}.ends")
