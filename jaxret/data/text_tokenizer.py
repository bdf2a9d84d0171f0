"""What every tokeniser offers: ours (a SentencePiece vocabulary) and those of published models."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

SPACE = "▁"


@dataclass(frozen=True)
class PairFrame:
    """What stands around two texts in one row: (id, token type) of each, and the types of the texts' own ids.

    Attributes:
      before, between, after: `[CLS]`, `[SEP]` and `[SEP]` for example.
      types: of the first and of the second text's ids.
      odd_to_first: where both texts are cut to an odd number of ids, the first one keeps one more; otherwise the longer
        one does, and of two equally long ones the second.
    """

    before: tuple[tuple[int, int], ...]
    between: tuple[tuple[int, int], ...]
    after: tuple[tuple[int, int], ...]
    types: tuple[int, int]
    odd_to_first: bool = False

    @property
    def size(self) -> int:
        """Ids besides those of the texts."""
        return len(self.before) + len(self.between) + len(self.after)

    @property
    def typed(self) -> bool:
        """Whether any type is not 0."""
        return any((*self.types, *(kind for _, kind in (*self.before, *self.between, *self.after))))


@runtime_checkable
class TextTokenizer(Protocol):
    """Text to ids and back; it can be pickled, and two are equal when all their ids are."""

    @property
    def size(self) -> int:
        """One more than the highest id."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its files."""

    @property
    def begin(self) -> tuple[int, ...]:
        """The ids before a text, [CLS] for example."""

    @property
    def end(self) -> tuple[int, ...]:
        """The ids after a text, [SEP] for example."""

    @property
    def pair_frame(self) -> PairFrame:
        """What stands around a query and a passage in one row; InputError where it takes no pairs."""

    @property
    def mask_id(self) -> int | None:
        """The id of [MASK], None where there is none."""

    @property
    def unk_id(self) -> int | None:
        """The id of what is not in the vocabulary, None where everything is."""

    @property
    def pad_id(self) -> int | None:
        """The id that the model's own library pads with (ours is `text.NO_TOKEN`), None where there is none."""

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The ids, ascending, that stand for no text."""

    @property
    def truncation_side(self) -> str:
        """Where a long text is cut off: "right" or "left"."""

    def token_id(self, piece: str) -> int | None:
        """The id of a piece as the vocabulary spells it; None, never `unk_id`, where it is not there."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without `begin` and `end`. Half a surrogate pair is read as U+FFFD."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, as far as the tokeniser keeps it; special ids leave nothing behind."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id as the vocabulary spells it."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each piece of `encode([text])` stands: [begin, end) in characters of the text, empty if nowhere."""

    def skiplist(self) -> frozenset[int]:
        """Ids of pieces made of punctuation, symbols and space only, in any script (ColBERT's is ASCII only)."""

    def save(self, path: str | Path) -> None:
        """Writes what its `load` reads: a file for ours, files in a folder for a published model's."""


def encodable(text: str) -> str:
    """The text with U+FFFD for every half of a surrogate pair, which no tokeniser accepts."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def skippable(character: str) -> bool:
    """Whether it is punctuation, a symbol or space."""
    return character == SPACE or character.isspace() or unicodedata.category(character)[0] in "PSZ"
