"""Words of a text and n-grams of characters: where they stand in a text that `normalized` has made.

A word is a maximal run of letters, marks, digits and underscores. For n-grams of unspaced scripts it is cut into units:
a Latin word or a number is one unit, a character of an unspaced script with its marks is one unit (in Thai and Lao with
the vowels that cannot stand alone, the "character cluster" of Theeramunkong et al. 2000).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

Span = tuple[int, int]

# Iteration marks and Han (with planes 2 and 3), kana with its long mark, Thai, Lao, Burmese, Khmer; no digits.
_UNSPACED = (
    "々-〇ぁ-ゖゝ-ゟァ-ヺー-ヿㇰ-ㇿ㐀-䶿一-鿿豈-﫿\U00020000-\U0003ffff"
    "\u0e01-\u0e4e\u0e80-\u0ecf\u0edc-\u0eff\u1000-\u103f\u1050-\u108f\u1780-\u17dd"
)
_LEADING_VOWELS = "\u0e40-\u0e44\u0ec0-\u0ec4"
_FOLLOWING_VOWELS = "\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3"


def normalized(text: str) -> str:
    """The text in case-folded NFKC."""
    # casefold, unlike lower, does not depend on the neighbouring characters (the Greek final sigma).
    return unicodedata.normalize("NFKC", text).casefold()


def words(text: str) -> list[str]:
    """The words of a normalised text."""
    return _word_pattern().findall(text)


def word_spans(text: str) -> Iterator[Span]:
    """Where `words` are."""
    return (match.span() for match in _word_pattern().finditer(text))


def ngram_spans(text: str, n: int) -> Iterator[Span]:
    """N-grams of the units of each word; before them, for n > 1, those units that are words or numbers.

    A word of fewer than n units stays whole: with n = 2, `1990年に` gives `1990`, `1990年` and `年に`, `年` gives `年`.
    """
    for word in _word_pattern().finditer(text):
        units = [unit.span() for unit in _unit_pattern().finditer(text, *word.span())]
        if len(units) > 1 and n > 1:
            yield from (match.span() for match in _spaced_pattern().finditer(text, *word.span()))
        if len(units) < n:
            yield word.span()
        else:
            yield from ((units[i][0], units[i + n - 1][1]) for i in range(len(units) - n + 1))


def letter_spans(text: str, n: int) -> Iterator[Span]:
    """N-grams of the characters of each word, of any script; a shorter word stays whole (McNamee and Mayfield 2004)."""
    for begin, end in word_spans(text):
        yield from ((i, i + n) for i in range(begin, end - n + 1)) if end - begin >= n else [(begin, end)]


def clusters(text: str) -> Iterator[Span]:
    """Spans of any text whose normal forms, joined, are the normal form of the whole."""
    begin = 0
    for position in range(1, len(text)):
        if not _joins_previous(text[position]):
            yield begin, position
            begin = position
    if text:
        yield begin, len(text)


@cache
def _joins_previous(character: str) -> bool:
    """Whether NFKC may compose the character with the one before it: marks, and the vowels and finals of Hangul."""
    first = unicodedata.normalize("NFKC", character)[0]
    return unicodedata.category(first).startswith("M") or "\u1160" <= first <= "\u11ff"


@cache
def _marks() -> str:
    """The combining marks, as ranges: `\\w` lacks them, and would cut Thai and Hindi words."""
    marks = [point for point in range(0x20000) if unicodedata.category(chr(point))[0] == "M"]
    first = [point for point in marks if unicodedata.category(chr(point - 1))[0] != "M"]
    last = [point for point in marks if unicodedata.category(chr(point + 1))[0] != "M"]
    return "".join(f"{chr(low)}-{chr(high)}" for low, high in zip(first, last, strict=True))


@cache
def _word_pattern() -> re.Pattern[str]:
    return re.compile(rf"[\w{_marks()}]+")


@cache
def _unit_pattern() -> re.Pattern[str]:
    tail = f"[{_marks()}{_FOLLOWING_VOWELS}]*"
    return re.compile(f"[{_LEADING_VOWELS}]?[{_UNSPACED}]{tail}|{_spaced_pattern().pattern}|[{_marks()}]+")


@cache
def _spaced_pattern() -> re.Pattern[str]:
    """A word, or its part, in scripts that are written with spaces; it does not begin with a mark."""
    return re.compile(rf"[^\W{_UNSPACED}](?:[^\W{_UNSPACED}]|[{_marks()}])*")
