"""Running text: documents as lists of sentences, from plain files and from BEIR corpora."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

from jaxret.data.beir import read_corpus
from jaxret.data.rows import every_line
from jaxret.data.sentences import sentences
from jaxret.data.sources import check_numbers
from jaxret.errors import InputError
from jaxret.files import existing, sha256


@dataclass(frozen=True)
class TextSource:
    """Running text.

    Attributes:
      path: a file with a sentence a line and a blank line between documents, plain or `.gz`; or a BEIR folder, each
        passage of which is a document (titles are left out).
      language: a number for its language.
      rate: its share in a mixture relative to the other sources.
    """

    path: str | Path
    language: int = 0
    rate: float = 1.0

    def __post_init__(self):
        check_numbers(f"source {self.path}", self.rate, self.language)

    @property
    def name(self) -> str:
        """The file's or the folder's."""
        return Path(self.path).resolve().name

    @cached_property
    def fingerprint(self) -> str:
        """Any change of the text changes it; InputError where there is none."""
        path = Path(self.path)
        kind, file = ("passages", path / "corpus.jsonl") if path.is_dir() else ("lines", path)
        return hashlib.sha256(f"{kind} {sha256(existing(file))}".encode()).hexdigest()

    def documents(self) -> Iterator[list[str]]:
        """The sentences of each document; InputError where the text cannot be read or there is none."""
        path, document = Path(self.path), None
        for document in _passages(path) if path.is_dir() else _paragraphs(path):
            yield document
        if document is None:
            raise InputError(path, "holds no text", "Write a sentence a line, and a blank line between documents.")


def _passages(folder: Path) -> Iterator[list[str]]:
    for text in read_corpus(folder).texts:
        yield sentences(text)


def _paragraphs(path: Path) -> Iterator[list[str]]:
    stripped = (line.strip() for _, line in every_line(path))
    for filled, block in groupby(stripped, bool):
        if filled:
            yield list(block)
