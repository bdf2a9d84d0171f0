"""Snowball's stemmers (the package PyStemmer): words without their endings, where Snowball has rules for a language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxret.errors import InputError

PACKAGES = ("PyStemmer",)

# ISO 639-1, or -3 where there is no such, then further codes of the language or its kin, then Snowball's name.
_LANGUAGES = """
ar ara,arb,arz arabic|hy hye,arm armenian|eu eus,baq basque|ca cat catalan|cs ces,cze czech|da dan danish
nl nld,dut dutch|en eng english|eo epo esperanto|et est,ekk estonian|fi fin finnish|fr fra,fre french
de deu,ger german|el ell,gre greek|hi hin hindi|hu hun hungarian|id ind indonesian|ga gle irish|it ita italian
lt lit lithuanian|ne nep,npi nepali|no nor,nb,nob,nn,nno norwegian|fa fas,per,pes persian|pl pol polish
pt por portuguese|ro ron,rum romanian|ru rus russian|sr srp serbian|st sot sesotho|es spa spanish|sv swe swedish
ta tam tamil|tr tur turkish|yi yid yiddish
"""
_ROWS = [row.split() for line in _LANGUAGES.split("\n") for row in line.split("|") if row]
ALGORITHMS = {code: name for first, others, name in _ROWS for code in (first, *others.split(","))}


def stems_of(code: str) -> Callable[[list[str]], list[str]]:
    """What gives the stem of each of a list of words.

    Args:
      code: ISO 639 code of the language.

    Raises:
      InputError: Snowball has no stemmer for it, or the package is missing or too old for it.
    """
    if code not in ALGORITHMS:
        choices = ", ".join(first for first, *_ in _ROWS)
        raise InputError("snowball", f"has no stemmer for {code!r}", f"Choose words, or a language of {choices}.")
    package, name = _package(), ALGORITHMS[code]
    if name not in package.algorithms():
        raise InputError("snowball", f"this PyStemmer has no {name}", "Run: pip install --upgrade PyStemmer")
    stems: Callable[[list[str]], list[str]] = package.Stemmer(name).stemWords
    return stems


def _package() -> Any:
    try:
        import Stemmer
    except ImportError:
        raise InputError("snowball", "needs the package PyStemmer", "Run: pip install PyStemmer") from None
    return Stemmer
