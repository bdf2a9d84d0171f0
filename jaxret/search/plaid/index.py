"""A compressed corpus on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from jaxret.errors import InputError
from jaxret.search.plaid.codec import Codec
from jaxret.search.plaid.files import AGAIN, LISTS, Chunk, check_folder, read_chunk, read_codec, read_facts, read_lists
from jaxret.search.vectors import Ragged

CODE_BYTES = 4


@dataclass(frozen=True)
class PlaidIndex:
    """The compressed token vectors of a corpus; a document's position is its row in the store it was built from.

    Attributes:
      codec: how the vectors are compressed.
      chunks: its documents in order, mapped from the files.
      facts: what `plaid.json` says, empty for an index of the reference's.
    """

    codec: Codec
    chunks: tuple[Chunk, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path, *, check: bool = True) -> PlaidIndex:
        """Reads an index that jaxret or the reference wrote.

        Args:
          folder: of the index.
          check: compare every file with its checksum first, where it has one.

        Raises:
          InputError: incomplete, or a file is missing, damaged or contradicts another.
        """
        folder = check_folder(folder) if check else Path(folder)
        codec = read_codec(folder)
        count, facts = read_facts(folder, codec)
        chunks = tuple(read_chunk(folder, number, codec) for number in range(count))
        index = cls(codec, chunks, facts)
        _check_lists(folder, codec, len(index))
        return index

    def __len__(self) -> int:
        """The number of documents, deleted ones included."""
        return sum(len(chunk.lengths) for chunk in self.chunks)

    @property
    def lengths(self) -> Int[np.ndarray, " d"]:
        """The number of tokens of each document, 0 for a deleted one."""
        return np.concatenate([np.zeros(0, np.int64), *(chunk.lengths for chunk in self.chunks)])

    @property
    def codes(self) -> Int[np.ndarray, " n"]:
        """The centroid of each token, int32, one document after the other: a copy of all of them."""
        return np.concatenate([np.zeros(0, np.int32), *(chunk.codes for chunk in self.chunks)]).astype(np.int32)

    @property
    def residuals(self) -> UInt8[np.ndarray, "n p"]:
        """The packed residual of each token: a copy of all of them."""
        return np.concatenate([np.zeros((0, self.codec.packed_width), np.uint8), *(c.residuals for c in self.chunks)])

    @property
    def num_tokens(self) -> int:
        """Of all documents."""
        return sum(len(chunk.codes) for chunk in self.chunks)

    @property
    def starts(self) -> Int[np.ndarray, " d1"]:
        """Where each document's tokens start, and the number of all tokens."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @property
    def num_bytes(self) -> int:
        """Of the compressed vectors and the codec as they are stored; the inverted lists come on top."""
        codec = self.codec.centroids.nbytes // 2 + self.codec.cutoffs.nbytes + self.codec.weights.nbytes
        return self.num_tokens * (CODE_BYTES + self.codec.packed_width) + codec

    def decompressed(self, rows: Int[np.ndarray, " m"]) -> Ragged:
        """The unit vectors that some documents' tokens stand for."""
        places, offsets = Ragged(np.zeros(0), self.starts).places(rows)
        return Ragged(self.codec.decompressed(self.codes[places], self.residuals[places]), offsets)


def inverted_lists(
    parts: Iterable[tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]], num_lists: int
) -> tuple[Int[np.ndarray, " i"], Int[np.ndarray, " c"]]:
    """The documents with a token in each list, each once: all lists end to end, and their lengths.

    A list has the documents of one part after those of another, those of a part ascending.

    Args:
      parts: the list and the document of each token; no document is in two parts.
      num_lists: there are, such as one for each centroid.
    """
    entries, sizes = [], [np.zeros(num_lists, np.int32)]
    for lists, documents in parts:
        pairs = np.unique(lists.astype(np.int64) << 32 | documents.astype(np.int64))
        entries.append((pairs & 0xFFFFFFFF).astype(np.int32))
        sizes.append(np.bincount(pairs >> 32, minlength=num_lists).astype(np.int32))
    total = np.stack(sizes).sum(axis=0, dtype=np.int64)
    first, listed = np.cumsum(total) - total, np.zeros(int(total.sum()), np.int32)
    for part, size in zip(entries, sizes[1:], strict=True):
        begin = np.cumsum(size, dtype=np.int64) - size
        listed[np.repeat(first - begin, size) + np.arange(len(part))] = part
        first += size
    return listed, total


def _check_lists(folder: Path, codec: Codec, documents: int) -> None:
    """The search makes its own lists, but files that contradict each other are not to be trusted."""
    pids, _ = read_lists(folder, len(codec.centroids))
    if len(pids) and not 0 <= int(pids.min()) <= int(pids.max()) < documents:
        problem = f"the inverted lists name document {int(pids.max())}, and there are {documents}"
        raise InputError(folder / LISTS, problem, AGAIN)
