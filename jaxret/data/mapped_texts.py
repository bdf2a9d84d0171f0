"""Many texts in one file, each read when it is asked for: a list of them would be held in memory."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import SupportsIndex, overload

import numpy as np

_ENDS = np.dtype("<i8")


@contextmanager
def texts_written(path: str | Path) -> Iterator[Callable[[str], object]]:
    """Gives a function that appends a text; at the end `MappedTexts(path)` has them. Texts need to be valid UTF-8."""
    end = 0
    with open(path, "wb") as texts, open(_ends(path), "wb") as ends:

        def append(text: str) -> None:
            nonlocal end
            end += texts.write(text.encode())
            ends.write(end.to_bytes(8, "little"))

        yield append


class MappedTexts(Sequence[str]):
    """The texts of a file that `texts_written` made; its pages are the system's to keep or drop."""

    def __init__(self, path: str | Path):
        self._ends = mapped(_ends(path), _ENDS)
        self._bytes = _mapped_bytes(path)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: SupportsIndex | slice) -> str | list[str]:
        """One text, or the list of a slice."""
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        begin = int(self._ends[place - 1]) if place else 0
        return self._bytes[begin : int(self._ends[place])].decode()


def mapped(path: str | Path, dtype: np.dtype | type) -> np.ndarray:
    """A file of numbers as an array that is read when it is looked at."""
    return np.frombuffer(_mapped_bytes(path), dtype)


def _mapped_bytes(path: str | Path) -> mmap.mmap | bytes:
    with open(path, "rb") as file:
        empty = not file.seek(0, 2)
        return b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _ends(path: str | Path) -> Path:
    return Path(f"{path}.ends")
