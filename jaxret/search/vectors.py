"""The representations of many texts on the host, ragged where they are ragged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxret.errors import InputError
from jaxret.nn.retriever import Embeddings, RetrieverConfig, Terms

CHECKED_ROWS = 2**16  # of an array at a time


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths as one flat array; row `i` is `values[offsets[i]:offsets[i + 1]]`."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row, `[n]`."""
        return np.diff(self.offsets)

    def row(self, index: int) -> np.ndarray:
        """One row."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def padded(self, rows: np.ndarray, length: int) -> np.ndarray:
        """The chosen rows `[n length ...]`; a short row is filled up with its first value, an empty one with zeros."""
        starts, sizes = self.offsets[rows], self.lengths[rows]
        if not len(self.values):
            return np.zeros((len(rows), length, *self.values.shape[1:]), self.values.dtype)
        places = np.arange(length)[None, :]
        index = starts[:, None] + np.where(places < sizes[:, None], places, 0)
        filled = np.take(self.values, index, axis=0, mode="clip")
        filled[sizes == 0] = 0
        return filled

    def part(self, start: int, stop: int) -> Ragged:
        """The rows from `start` to `stop`."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return Ragged(self.values[first:last], self.offsets[start : stop + 1] - first)

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the values of some rows stand, one row after the other, and the offsets of these rows."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return np.arange(int(offsets[-1])) + np.repeat(self.offsets[rows] - offsets[:-1], lengths), offsets

    def chosen(self, rows: np.ndarray) -> Ragged:
        """Some of the rows, in the order asked for."""
        places, offsets = self.places(rows)
        return Ragged(self.values[places], offsets)

    @classmethod
    def from_rows(cls, rows: Sequence[np.ndarray]) -> Ragged:
        """Joins rows."""
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        return cls(np.concatenate(rows), offsets)

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """Several, one after the other."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.values for part in parts]), np.concatenate([[0], np.cumsum(lengths)]))


@dataclass(frozen=True)
class Vectors:
    """What a model made of `n` texts; None where it lacks the head.

    Attributes:
      dense: `[n e]` float32.
      tokens: `[n (l) k]` float32, only the tokens that take part in MaxSim.
      term_ids, term_weights: `[n (m)]` int32 and float32, the non-zero lexical weights by ascending term.
      dense_scales, token_scales: float32, one a vector, `[n]` and `[n (l)]`, where `dense` and `tokens` are int8: a
        vector is its integers times its scale. From a store they may be bfloat16 too, without scales.
    """

    dense: np.ndarray | None = None
    tokens: Ragged | None = None
    term_ids: Ragged | None = None
    term_weights: Ragged | None = None
    dense_scales: np.ndarray | None = None
    token_scales: Ragged | None = None

    def needed(self, name: str) -> Any:
        """One of the attributes; raises InputError where the model lacks the head that makes it."""
        value = getattr(self, name)
        if value is None:
            fix = "Use a model with the head that makes it, or another mode."
            raise InputError("vectors", f"{name!r} is missing", fix)
        return value

    def parts(self, names: Sequence[str], limit: int | None, share: tuple[int, int]) -> Iterator[tuple[int, Vectors]]:
        """This process's share of the texts, see `StoredVectors.parts`; no limit, they are in memory."""
        start, stop = (len(self) * number // share[1] for number in (share[0], share[0] + 1))
        yield start, self.part(start, stop)

    def lengths(self, name: str, share: tuple[int, int]) -> Iterator[np.ndarray]:
        """How many rows of an array each text has, part after part as `parts` without a limit has them."""
        for _, part in self.parts((name,), None, share):
            array = part.needed(name)
            yield array.lengths if isinstance(array, Ragged) else np.ones(len(array), np.int64)

    def has(self, name: str) -> bool:
        """Whether an attribute is there."""
        return getattr(self, name) is not None

    def nbytes(self, names: Sequence[str]) -> int:
        """Bytes of some of the attributes."""
        arrays = [getattr(self, name) for name in names]
        flat = [array.values if isinstance(array, Ragged) else array for array in arrays if array is not None]
        return sum(array.nbytes for array in flat)

    def itemsize(self, name: str) -> int:
        """Bytes of one row of an array."""
        array = self.needed(name)
        array = array.values if isinstance(array, Ragged) else array
        return array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))

    def part(self, start: int, stop: int) -> Vectors:
        """The texts from `start` to `stop`."""
        return self._each(lambda part: part.part(start, stop), lambda part: part[start:stop])

    def chosen(self, rows: np.ndarray) -> Vectors:
        """Some of the texts, in the order asked for."""
        return self._each(lambda part: part.chosen(rows), lambda part: part[rows])

    def rows(self, rows: Sequence[int] | np.ndarray) -> Vectors:
        """As `StoredVectors` has it."""
        return self.chosen(np.asarray(rows, np.int64))

    def _each(self, ragged: Callable[[Ragged], Ragged], flat: Callable[[np.ndarray], np.ndarray]) -> Vectors:
        """What becomes of every attribute that is there."""

        def one(part: Any) -> Any:
            return part if part is None else ragged(part) if isinstance(part, Ragged) else flat(part)

        return Vectors(**{field.name: one(getattr(self, field.name)) for field in dataclasses.fields(self)})

    def padded(self, config: RetrieverConfig) -> Embeddings:
        """The same as rectangular arrays: token vectors and terms filled up to the longest text's."""
        rows = np.arange(len(self))
        lexical = tokens = mask = None
        if self.term_ids is not None and self.term_weights is not None:
            longest = int(self.term_ids.lengths.max(initial=1))
            kept = np.arange(longest)[None, :] < self.term_ids.lengths[:, None]
            weights = np.where(kept, self.term_weights.padded(rows, longest), np.float32(0))
            lexical = Terms(weights, self.term_ids.padded(rows, longest), config.encoder.vocab_size)
        if self.tokens is not None:
            longest = int(self.tokens.lengths.max(initial=1))
            mask = np.arange(longest)[None, :] < self.tokens.lengths[:, None]
            tokens = np.where(mask[:, :, None], self.tokens.padded(rows, longest), np.float32(0))
        return Embeddings(self.dense, lexical, tokens, mask)

    def __len__(self) -> int:
        return len(next(part for part in (self.dense, self.tokens, self.term_ids) if part is not None))


def check_finite(vectors: Vectors, side: str, ids: Sequence[str] | None = None) -> None:
    """Raises InputError where a number is NaN or infinite.

    Args:
      vectors: of some texts.
      side: what the texts are, "query" or "document".
      ids: of the texts; without them the error counts from 0.
    """
    for field in dataclasses.fields(vectors):
        part = getattr(vectors, field.name)
        values = part.values if isinstance(part, Ragged) else part
        if values is None or values.dtype.kind == "i":
            continue
        for start in range(0, len(values), CHECKED_ROWS):
            finite = np.isfinite(values[start : start + CHECKED_ROWS])
            if not finite.all():
                row = start + int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
                text = int(np.searchsorted(part.offsets, row, side="right")) - 1 if isinstance(part, Ragged) else row
                place = f"{side} {text}" if ids is None else f"{side} {ids[text]!r}"
                problem = f"{field.name} holds NaN or an infinite number"
                raise InputError(place, problem, "Look for NaN in the model, or for numbers too large for the dtype.")
