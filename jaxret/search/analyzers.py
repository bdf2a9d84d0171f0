"""Text to search terms, one rule for every language, and where a query's terms stand in a text.

Terms are words: maximal runs of letters, marks, digits and underscores, in case-folded NFKC. In languages that are
written without spaces a run is cut into units: a Latin word or a number is one unit, a character of an unspaced script
with its marks is one unit (in Thai and Lao with the vowels that cannot stand alone, the "character cluster" of
Theeramunkong et al. 2000). The terms are then the pairs of neighbouring units, the words among the units, and the unit
of a run that has only one. So `1990年に` gives `1990`, `1990年`, `年に`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from jaxret.errors import InputError

# ISO 639 codes of languages whose words are not separated by spaces; `mul`: a corpus of several languages.
_UNSPACED_LANGUAGES = frozenset(
    [
        "ja",
        "jpn",
        "zh",
        "zho",
        "chi",
        "cmn",
        "yue",
        "wuu",
        "nan",
        "lzh",
        "th",
        "tha",
        "lo",
        "lao",
        "km",
        "khm",
        "my",
        "mya",
        "bur",
        "mul",
    ]
)
# Iteration marks and Han (with planes 2 and 3), kana with its long mark, Thai, Lao, Burmese, Khmer; no digits.
_UNSPACED = (
    "々-〇ぁ-ゖゝ-ゟァ-ヺー-ヿㇰ-ㇿ㐀-䶿一-鿿豈-﫿\U00020000-\U0003ffff"
    "\u0e01-\u0e4e\u0e80-\u0ecf\u0edc-\u0eff\u1000-\u103f\u1050-\u108f\u1780-\u17dd"
)
_LEADING_VOWELS = "\u0e40-\u0e44\u0ec0-\u0ec4"
_FOLLOWING_VOWELS = "\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3"
_CODE = re.compile(r"([a-z]{2,3})([-_][a-z0-9]+)*")


@dataclass(frozen=True)
class Analyzer:
    """Called with a text, gives its terms, with repetitions. `unspaced`: pairs of characters, not only words."""

    unspaced: bool

    def __call__(self, text: str) -> list[str]:
        """The terms of a text, in order."""
        words = _word_pattern().findall(_normalized(text))
        if not self.unspaced:
            return words
        units_of, spaced_of = _unit_pattern().findall, _spaced_pattern().findall
        terms = []
        for word in words:
            units = units_of(word)
            if len(units) == 1:
                terms.append(word)
            else:
                terms += spaced_of(word)
                terms += [first + second for first, second in pairwise(units)]
        return terms


def analyzer(language: str) -> Analyzer:
    """The analyzer of a language.

    Args:
      language: an ISO 639 code, with or without script and region (`ja`, `jpn`, `zh-Hans`, `jpn_Jpan`, `pt-BR`).
        Languages written without spaces, and `mul` for mixed corpora, get pairs of characters; all others get words.

    Raises:
      InputError: `language` does not look like such a code.
    """
    match = _CODE.fullmatch(language.lower())
    if match is None:
        fix = "Give an ISO 639 code such as ja, en, am or zh-Hans, or mul for several languages."
        raise InputError("language", f"{language!r} is not a language code", fix)
    return Analyzer(unspaced=match[1] in _UNSPACED_LANGUAGES)


def matched_spans(analyzer: Analyzer, query: str, text: str) -> list[tuple[int, int]]:
    """Spans `[begin, end)` of characters of `text` that hold a term of `query`; sorted, touching ones merged.

    The spans are of the text as given: characters that normalisation joins or splits (half-width kana with a voicing
    mark, ligatures) are marked whole.
    """
    terms = set(analyzer(query))
    characters, begins, ends = [], [], []
    for begin, end in _clusters(text):
        for character in _normalized(text[begin:end]):
            characters.append(character)
            begins.append(begin)
            ends.append(end)
    normalized = "".join(characters)
    merged: list[tuple[int, int]] = []
    for first, last in sorted(_term_spans(normalized, analyzer.unspaced)):
        if normalized[first:last] in terms:
            begin, end = begins[first], ends[last - 1]
            if merged and begin <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((begin, end))
    return merged


def _term_spans(text: str, unspaced: bool) -> Iterator[tuple[int, int]]:
    """Spans of the terms of a normalised text."""
    for word in _word_pattern().finditer(text):
        units = [unit.span() for unit in _unit_pattern().finditer(text, *word.span())] if unspaced else []
        if len(units) < 2:
            yield word.span()
        else:
            yield from (match.span() for match in _spaced_pattern().finditer(text, *word.span()))
            yield from ((first[0], second[1]) for first, second in pairwise(units))


def _normalized(text: str) -> str:
    # casefold, unlike lower, does not depend on the neighbouring characters (the Greek final sigma).
    return unicodedata.normalize("NFKC", text).casefold()


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Spans of `text` whose normal forms, joined, are the normal form of the whole."""
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
