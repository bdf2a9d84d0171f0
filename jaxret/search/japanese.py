"""Japanese words by MeCab with the dictionary UniDic (the package unidic-lite)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from jaxret.errors import InputError

PACKAGES = ("fugashi", "unidic-lite")

# Parts of speech as UniDic names them: particles, auxiliary verbs, signs, spaces.
_DROPPED = frozenset(["助詞", "助動詞", "補助記号", "記号", "空白"])
_LETTER = re.compile(r"\w")


def japanese_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the words of a normalised text stand, without particles, auxiliary verbs and signs."""
    return ((begin, end) for begin, end, _ in _words(text))


def japanese_lemmas(text: str) -> list[str]:
    """The lemmas of these words; what UniDic does not know stands for itself."""
    return [lemma for *_, lemma in _words(text)]


def _words(text: str) -> Iterator[tuple[int, int, str]]:
    end = 0
    for node in mecab()(text.replace("\0", " ")):
        begin = text.index(node.surface, end)
        end = begin + len(node.surface)
        if node.feature.pos1 not in _DROPPED and _LETTER.search(node.surface):
            yield begin, end, getattr(node.feature, "lemma", None) or node.surface


@cache
def mecab() -> Any:
    """The tagger; InputError where a package of it is missing."""
    try:
        import fugashi
        import unidic_lite
    except ImportError as error:
        raise InputError("mecab", f"needs the package {error.name}", "Run: pip install jaxret[ja]") from None
    folder = unidic_lite.DICDIR
    return fugashi.Tagger(f'-r "{folder}/mecabrc" -d "{folder}"')
