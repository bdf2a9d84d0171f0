"""Documents and queries, a column for each field."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Corpus:
    """Documents in file order; entry i of each list is one document."""

    ids: Sequence[str]
    titles: Sequence[str]
    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """From document id to its place in the lists."""
        return {identifier: row for row, identifier in enumerate(self.ids)}

    @cached_property
    def by_id(self) -> np.ndarray:
        """int64 [n]: places in the lists, in ascending order of ids."""
        return np.array(sorted(range(len(self)), key=self.ids.__getitem__), np.int64)

    @cached_property
    def text_keys(self) -> np.ndarray:
        """uint64 [n]: a hash of each text, its title and the number of its spaces aside."""
        return np.array([text_key(text) for text in self.texts], np.uint64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids, titles and texts: the same for a plain and a gzip copy."""
        return content_hash(zip(self.ids, self.titles, self.texts, strict=True))


def text_key(text: str) -> int:
    """A 64-bit hash of a text that the number of its spaces does not change."""
    return int.from_bytes(hashlib.blake2b(" ".join(text.split()).encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Queries:
    """Queries in file order; entry i of each list is one query."""

    ids: list[str]
    texts: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """From query id to its place in the lists."""
        return {identifier: row for row, identifier in enumerate(self.ids)}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids and texts: the same for a plain and a gzip copy."""
        return content_hash(zip(self.ids, self.texts, strict=True))


def content_hash(records: Iterable[tuple[str, ...]]) -> str:
    """SHA-256 over the fields of records and where each ends."""
    digest = hashlib.sha256()
    for record in records:
        for field in record:
            value = field.encode()
            digest.update(len(value).to_bytes(8, "little") + value)
    return digest.hexdigest()
