"""The documents of an index in a file, each read when it is asked for and compared with its checksum.

A document is a line of JSON; for each line a second file has where it ends (int64) and its CRC-32 (uint32).
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxret.errors import InputError
from jaxret.files import atomic, sha256

DOCUMENTS, OFFSETS = "documents.jsonl", "documents.offsets.npy"
AGAIN = "Run jaxret index again."
_LINE = np.dtype([("end", "<i8"), ("crc", "<u4")])


@dataclass(frozen=True)
class Document:
    """One document of an index."""

    id: str
    title: str
    text: str


def write_documents(folder: str | Path, documents: Iterable[Document], count: int) -> str:
    """Writes `count` documents, each file whole or not at all; the SHA-256 of the offsets, for `Documents`."""
    folder, lines, end = Path(folder), np.zeros(count, _LINE), 0
    with atomic(folder / DOCUMENTS, "wb") as file:
        for row, document in enumerate(documents):
            record = {"_id": document.id, "title": document.title, "text": document.text}
            line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
            end += file.write(line)
            lines[row] = end, zlib.crc32(line)
    with atomic(folder / OFFSETS, "wb") as file, io.BytesIO() as written:
        np.save(written, lines)  # into a file it would hide why a disk refused
        file.write(written.getbuffer())
    return sha256(folder / OFFSETS)


class Documents:
    """What `write_documents` wrote, left where it is.

    Args:
      folder: where the files are.
      digest: the SHA-256 of the offsets.

    Raises:
      InputError: a file is missing, cut short or, of the offsets, damaged.
    """

    def __init__(self, folder: str | Path, digest: str):
        self._file, offsets = Path(folder) / DOCUMENTS, Path(folder) / OFFSETS
        for file in (self._file, offsets):
            if not file.is_file():
                raise InputError(file, "no such file", AGAIN)
        if sha256(offsets) != digest:
            raise InputError(offsets, "damaged (its checksum differs)", AGAIN)
        self._lines = np.load(offsets, "r")
        size, end = self._file.stat().st_size, self._end(len(self))
        if size != end:
            raise InputError(self._file, f"damaged ({size} bytes instead of {end})", AGAIN)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, position: int) -> Document:
        """The document at a position of the store; raises InputError where its line is damaged."""
        begin, end = self._end(position), self._end(position + 1)
        with open(self._file, "rb") as file:
            file.seek(begin)
            line = file.read(end - begin)
        if zlib.crc32(line) != self._lines["crc"][position]:
            raise InputError(f"{self._file}:{position + 1}", "damaged (its checksum differs)", AGAIN)
        record = json.loads(line)
        return Document(record["_id"], record["title"], record["text"])

    def _end(self, count: int) -> int:
        """Where the first so many lines end."""
        return int(self._lines["end"][count - 1]) if count else 0
