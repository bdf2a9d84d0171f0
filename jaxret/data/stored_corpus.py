"""A corpus in files, for corpora larger than memory: fields are read when asked for, ids are found by halving."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from jaxret.data.beir_rows import duplicate, unchecked_texts
from jaxret.data.corpus import Corpus, text_key
from jaxret.data.mapped_texts import mapped, mapped_texts, texts_written
from jaxret.data.rows import BadRows

SORTED_AT_ONCE = 100_000


@dataclass(frozen=True, eq=False)
class StoredCorpus(Corpus):
    """A corpus whose columns lie in `folder`; what it holds in memory does not grow with it."""

    folder: Path

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """From document id to its place in the columns."""
        return SortedIds(self.ids, self.by_id, self.by_id)

    @cached_property
    def by_id(self) -> np.ndarray:
        """As `Corpus.by_id`."""
        return mapped(self.folder / "by_id", np.int64)

    @cached_property
    def text_keys(self) -> np.ndarray:
        """As `Corpus.text_keys`."""
        return mapped(self.folder / "text_keys", np.uint64)


class SortedIds(Mapping[str, int]):
    """From an id to a number.

    Args:
      ids: n of them, in any order.
      by_id: [n] their places, in ascending order of ids.
      numbers: [n] the number of each, in ascending order of ids.
    """

    def __init__(self, ids: Sequence[str], by_id: Sequence[int] | np.ndarray, numbers: Sequence[int] | np.ndarray):
        self._ids, self._by_id, self._numbers = ids, by_id, numbers

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __getitem__(self, identifier: str) -> int:
        rank = bisect_left(self._by_id, identifier, key=lambda place: self._ids[place])
        if rank == len(self) or self._ids[self._by_id[rank]] != identifier:
            raise KeyError(identifier)
        return int(self._numbers[rank])


def stored_corpus(file: Path, folder: Path, bad: BadRows) -> StoredCorpus:
    """Reads `corpus.jsonl` into files.

    Args:
      file: what is read.
      folder: where the columns go; made where it is missing.
      bad: what to do with bad rows, see `read_corpus`.

    Raises:
      InputError: as `read_corpus`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = ("ids", "titles", "texts")
    with ExitStack() as stack:
        columns = [stack.enter_context(texts_written(folder / name)) for name in names]
        keys, lines = (stack.enter_context(open(folder / name, "wb")) for name in ("text_keys", "lines"))
        for row in unchecked_texts(file, bad):
            for append, value in zip(columns, row[1:], strict=True):
                append(value)
            keys.write(text_key(row.text).to_bytes(8, "little"))
            lines.write(row.line.to_bytes(8, "little"))
    ids, titles, texts = (mapped_texts(folder / name) for name in names)
    corpus = StoredCorpus(ids, titles, texts, folder)
    _write_by_id(file, corpus, mapped(folder / "lines", np.int64))
    return corpus


def _write_by_id(file: Path, corpus: StoredCorpus, lines: np.ndarray) -> None:
    """Sorts part after part, then merges the parts; equal ids meet."""
    parts: list[Path] = []
    name_of: Callable[[int], str] = corpus.ids.__getitem__
    for start in range(0, len(corpus), SORTED_AT_ONCE):
        rows = sorted(range(start, min(start + SORTED_AT_ONCE, len(corpus))), key=name_of)
        parts.append(corpus.folder / f"part-{len(parts)}")
        np.array(rows, np.int64).tofile(parts[-1])
    before = None
    with open(corpus.folder / "by_id", "wb") as places:
        for row in heapq.merge(*(map(int, mapped(part, np.int64)) for part in parts), key=name_of):
            if before is not None and name_of(before) == name_of(row):
                raise duplicate(file, name_of(row), int(lines[before]), int(lines[row]))
            places.write(row.to_bytes(8, "little"))
            before = row
    for part in parts:
        part.unlink()
