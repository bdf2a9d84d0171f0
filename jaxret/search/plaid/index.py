"""A compressed corpus in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from jaxret.errors import InputError
from jaxret.search.plaid.codec import Codec
from jaxret.search.plaid.files import AGAIN, LISTS, check_folder, read_chunk, read_codec, read_facts, read_lists
from jaxret.search.vectors import Ragged


@dataclass(frozen=True)
class PlaidIndex:
    """The compressed token vectors of a corpus; a document's position is its row in the store it was built from.

    Attributes:
      codec: how the vectors are compressed.
      codes: the centroid of each token, int32, one document after the other.
      residuals: its packed residual.
      lengths: the number of tokens of each document, 0 for a deleted one.
      facts: what `plaid.json` says, empty for an index of the reference's.
    """

    codec: Codec
    codes: Int[np.ndarray, " n"]
    residuals: UInt8[np.ndarray, "n p"]
    lengths: Int[np.ndarray, " d"]
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
        chunks = [read_chunk(folder, number, codec) for number in range(count)]
        codes = np.concatenate([np.zeros(0, np.int32), *(chunk.codes for chunk in chunks)]).astype(np.int32)
        residuals = np.concatenate([np.zeros((0, codec.packed_width), np.uint8), *(c.residuals for c in chunks)])
        lengths = np.concatenate([np.zeros(0, np.int64), *(chunk.lengths for chunk in chunks)])
        _check_lists(folder, codec, lengths)
        return cls(codec, codes, residuals, lengths, facts)

    def __len__(self) -> int:
        """The number of documents, deleted ones included."""
        return len(self.lengths)

    @property
    def starts(self) -> Int[np.ndarray, " d1"]:
        """Where each document's tokens start, and the number of all tokens."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @property
    def num_bytes(self) -> int:
        """Of the compressed vectors and the codec as they are stored; the inverted lists come on top."""
        codec = self.codec.centroids.nbytes // 2 + self.codec.cutoffs.nbytes + self.codec.weights.nbytes
        return self.codes.nbytes + self.residuals.nbytes + codec

    def decompressed(self, rows: Int[np.ndarray, " m"]) -> Ragged:
        """The unit vectors that some documents' tokens stand for."""
        starts = self.starts
        tokens = [np.arange(starts[row], starts[row + 1]) for row in rows.tolist()]
        flat = np.concatenate([np.zeros(0, np.int64), *tokens])
        offsets = np.concatenate([[0], np.cumsum(self.lengths[rows])])
        return Ragged(self.codec.decompressed(self.codes[flat], self.residuals[flat]), offsets)


def inverted_lists(
    codes: Int[np.ndarray, " n"], documents: Int[np.ndarray, " n"], num_centroids: int
) -> tuple[Int[np.ndarray, " i"], Int[np.ndarray, " c"]]:
    """The documents with a token at each centroid, ascending and each once: all lists end to end, and their lengths.

    Args:
      codes: the centroid of each token.
      documents: the document of each token.
      num_centroids: the number of lists.
    """
    pairs = np.unique(codes.astype(np.int64) << 32 | documents.astype(np.int64))
    return (pairs & 0xFFFFFFFF).astype(np.int32), np.bincount(pairs >> 32, minlength=num_centroids)


def _check_lists(folder: Path, codec: Codec, lengths: Int[np.ndarray, " d"]) -> None:
    """The search makes its own lists, but files that contradict each other are not to be trusted."""
    pids, _ = read_lists(folder, len(codec.centroids))
    if len(pids) and not 0 <= int(pids.min()) <= int(pids.max()) < len(lengths):
        problem = f"the inverted lists name document {int(pids.max())}, and there are {len(lengths)}"
        raise InputError(folder / LISTS, problem, AGAIN)
