"""A SentencePiece vocabulary: text to ids and back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import sentencepiece

from jaxret.data.text_tokenizer import SPACE, PairFrame, encodable, skippable
from jaxret.data.vocabulary import CLS, DOCUMENT, MASK, PAD, QUERY, SEP, SPECIAL_PIECES, UNK, trained_vocabulary
from jaxret.errors import InputError
from jaxret.files import atomic

__all__ = ["CLS", "DOCUMENT", "MASK", "PAD", "QUERY", "SEP", "SPECIAL_PIECES", "UNK", "Tokenizer", "trained_vocabulary"]

# One call with a list starts sentencepiece's thread pool, which costs more than a few short texts.
_FEW_TEXTS = 16


@dataclass(frozen=True)
class Tokenizer:
    """A trained vocabulary, made from the bytes of a SentencePiece model; equal when those are equal.

    Ids 0 to 6 are [PAD] [UNK] [CLS] [SEP] [MASK] [Q] [D]. None of them ever comes out of `encode`: the text "[MASK]"
    is ordinary characters, and characters outside the vocabulary become bytes.
    """

    model: bytes = field(repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Reads a vocabulary that `save` wrote; InputError where the file is missing or another kind of model."""
        try:
            tokenizer = cls(Path(path).read_bytes())
        except OSError as error:
            raise InputError(path, f"no vocabulary ({error.strerror})", "Make one with `jaxret vocab`.") from None
        found = tokenizer.pieces(range(min(tokenizer.size, len(SPECIAL_PIECES))))
        if tuple(found) != SPECIAL_PIECES:
            problem = f"ids 0 to 6 are {' '.join(found) or 'missing'}, not {' '.join(SPECIAL_PIECES)}"
            raise InputError(path, problem, "Make a vocabulary with `jaxret vocab`.")
        return tokenizer

    def save(self, path: str | Path) -> None:
        """Writes the model, all of it or nothing."""
        with atomic(path, "wb") as file:
            file.write(self.model)

    @property
    def size(self) -> int:
        """The number of ids."""
        return self._processor.get_piece_size()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the model."""
        return hashlib.sha256(self.model).hexdigest()

    @property
    def begin(self) -> tuple[int, ...]:
        """[CLS]."""
        return (CLS,)

    @property
    def end(self) -> tuple[int, ...]:
        """[SEP]."""
        return (SEP,)

    @property
    def pair_frame(self) -> PairFrame:
        """[CLS] query [SEP] passage [SEP], the passage and its end of type 1."""
        return PairFrame(((CLS, 0),), ((SEP, 0),), ((SEP, 1),), (0, 1))

    @property
    def mask_id(self) -> int:
        """[MASK]."""
        return MASK

    @property
    def unk_id(self) -> int:
        """[UNK], which never comes out of `encode`."""
        return UNK

    @property
    def pad_id(self) -> int:
        """[PAD]."""
        return PAD

    @property
    def special_ids(self) -> tuple[int, ...]:
        """0 to 6."""
        return tuple(range(len(SPECIAL_PIECES)))

    @property
    def truncation_side(self) -> str:
        """The end of a long text is cut off."""
        return "right"

    def token_id(self, piece: str) -> int | None:
        """The id of a piece; None where it is not in the vocabulary."""
        found = self._processor.piece_to_id(piece)
        return found if self._processor.id_to_piece(found) == piece else None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special ids. Half a surrogate pair is read as U+FFFD."""
        texts = [encodable(text) for text in texts]
        if len(texts) <= _FEW_TEXTS:
            return [self._processor.encode(text) for text in texts]
        return self._processor.encode(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, normalised; special ids leave nothing behind."""
        return self._processor.decode([int(piece) for piece in ids if piece >= len(SPECIAL_PIECES)])

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id: "▁" marks a space, "<0xE3>" a byte."""
        return [self._processor.id_to_piece(int(piece)) for piece in ids]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each piece of `encode([text])` stands: [begin, end) in characters of the text as given.

        Pieces that one character became (its bytes, or its expansion under NFKC) share the character's span. The
        space before the first word is not in the text and has an empty span.
        """
        found = self._processor.encode(encodable(text), return_type="offset_mapping")
        spans: list[tuple[int, int]] = found["offsets"]
        shared = (-1, -1)
        for i in reversed(range(len(spans))):
            # sentencepiece gives a character to the last of its pieces and an empty span to the others.
            if spans[i][0] < spans[i][1]:
                shared = spans[i]
            elif spans[i][0] == shared[0] and found["pieces"][i] != SPACE:
                spans[i] = shared
        return spans

    def skiplist(self) -> frozenset[int]:
        """Ids of pieces made of punctuation, symbols and space marks only, in any script (ColBERT's is ASCII only)."""
        return self._skiplist

    @cached_property
    def _skiplist(self) -> frozenset[int]:
        ordinary = range(len(SPECIAL_PIECES), self.size)
        return frozenset(i for i in ordinary if all(map(skippable, self._processor.id_to_piece(i))))

    @cached_property
    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        try:
            return sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except RuntimeError:
            problem = "not a SentencePiece model, or cut off"
            raise InputError("vocabulary", problem, "Make one with `jaxret vocab`.") from None

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[bytes]]:
        return Tokenizer, (self.model,)
