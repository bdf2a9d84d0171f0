"""Cutting a text into sentences, and putting sentences together again."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Full stops of scripts that have their own: ideographic, Ethiopic (፡፡ is two word spaces), Devanagari, Arabic, Urdu,
# Armenian, Khmer, Burmese. Thai and Lao end a sentence with a space, as a phrase: their texts stay whole.
STOPS = "。！？｡።፧፨।॥؟۔։។៕။"
_OPEN, _CLOSE = "「『（(【〔〈《“«[", "」』）)】〕〉》”»]"
_END = re.compile(rf"(?:[{STOPS}]|．(?!\d)|፡፡|[.!?…])+[{re.escape(_CLOSE)}\"'’]*")
_BRACKET = re.compile(rf"[{re.escape(_OPEN + _CLOSE)}]")
_TITLES = "Mr Mrs Ms Dr Prof St Jr Sr Rev Sen Rep Gen Gov Capt Lt Col Sgt Det vs cf Fig Vol pp approx"
_MONTHS = "Jan Feb Aug Sept Oct Nov Dec"
# An initial, initials (U.S, e.g) or a short form, at the end of what goes before the full stop.
_ABBREVIATION = re.compile(rf"(?<![^\W_])(?:(?:[^\W\d_]\.)*[^\W\d_]|{'|'.join((_TITLES + ' ' + _MONTHS).split())})$")


def sentences(text: str) -> list[str]:
    """The sentences of a text in order, without white space around them; a line's end is a sentence's end.

    Full stops of scripts that have their own end a sentence wherever they stand, those of Latin script (. ! ? …) before
    a space, unless a small letter follows or an abbreviation went before. Inside brackets and quotation marks nothing
    ends, and a quotation that goes on (「はい。」と) does not either.
    """
    found = []
    for line in text.splitlines():
        begin = 0
        for match in _END.finditer(line):
            if _ends(line, match):
                found.append(line[begin : match.end()].strip())
                begin = match.end()
        found.append(line[begin:].strip())
    return [sentence for sentence in found if sentence]


def joined(parts: Sequence[str]) -> str:
    """Sentences as one text: a space between two, but none beside a full-width character."""
    text = ""
    for part in parts:
        text += " " if text and part and not (_wide(text[-1]) or _wide(part[0])) else ""
        text += part
    return text


def _ends(line: str, match: re.Match[str]) -> bool:
    marks, after = match.group(), line[match.end() :]
    bracket = _BRACKET.search(after)
    if bracket and bracket.group() in _CLOSE:
        return False
    if any(mark in marks for mark in (*STOPS, "．", "፡፡")):
        return marks[-1] not in _CLOSE or not after or after[0].isspace() or after[0] in _OPEN
    if not after:
        return True
    if not after[0].isspace() or after.lstrip()[:1].islower():
        return False
    return marks[0] != "." or not _ABBREVIATION.search(line[: match.start()])


def _wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"
