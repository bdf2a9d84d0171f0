"""Which pieces of a vocabulary begin a word."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from jaxtyping import Bool

from jaxret.data.text_tokenizer import SPACE, TextTokenizer, skippable
from jaxret.data.tokenizer_backends import BYTE_OF_LETTER, WORD_PART

LETTER_OF_SPACE = next(letter for letter, byte in BYTE_OF_LETTER.items() if byte == ord(" "))
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_IDEOGRAPHIC = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO")
_UNSPACED = (*_IDEOGRAPHIC, "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def word_starts(tokenizer: TextTokenizer) -> Bool[np.ndarray, " v"]:
    """True where a piece begins a word, False where it goes on with the word of the piece before it.

    Three spellings are told apart by the pieces themselves: WordPiece marks what goes on ("##"), SentencePiece ("▁")
    and BPE over bytes ("Ġ") mark what follows a space. The latter two know no words in scripts without spaces: there
    every piece, and elsewhere every punctuation mark, is a word of its own, and of characters spelled in bytes every
    character. So is every piece of a vocabulary without such marks.
    """
    pieces = tokenizer.pieces(range(tokenizer.size))
    rules = {WORD_PART: _wordpiece, SPACE: _sentencepiece, LETTER_OF_SPACE: _bytes}
    counts = {mark: sum(len(piece) > len(mark) and piece.startswith(mark) for piece in pieces) for mark in rules}
    mark = max(counts, key=lambda each: counts[each])
    rule = rules[mark] if counts[mark] else lambda piece: True
    return np.array([rule(piece) for piece in pieces], np.bool_)


def _wordpiece(piece: str) -> bool:
    return not (piece.startswith(WORD_PART) and len(piece) > len(WORD_PART))


def _sentencepiece(piece: str) -> bool:
    if found := _BYTE.fullmatch(piece):
        return not _continues(int(found[1], 16))
    return piece == "" or _alone(piece[0])


def _bytes(piece: str) -> bool:
    if not piece or any(letter not in BYTE_OF_LETTER for letter in piece):
        return True
    content = bytes(BYTE_OF_LETTER[letter] for letter in piece)
    try:
        return _alone(content.decode()[0])
    except UnicodeDecodeError:
        return 0xE3 <= content[0] <= 0xE9  # the first byte of kana and ideographs


def _continues(byte: int) -> bool:
    return 0x80 <= byte <= 0xBF


def _alone(character: str) -> bool:
    return skippable(character) or unicodedata.name(character, "").startswith(_UNSPACED)
