"""Amharic words without differences of spelling, and without the affixes of nouns.

Several letters are pronounced alike and written for each other: ሀ ሐ ኀ ኸ, ሰ ሠ, አ ዐ, ጸ ፀ, their first and fourth orders
(ሀ ሃ, አ ኣ), labialised letters and pairs (ጐ ጎ, ሏ ሉዋ). One of each group is kept.

Prepositions, articles, possessives, plurals and conjunctions are written together with the noun, and change its last
letter, for a letter is a consonant with its vowel: ቤት (house), ቤቶች (houses). So affixes are matched consonant by
consonant, longest first and repeatedly, as long as enough of the word remains. Most affixes are in Obolensky, Zelelie
and Andualem 1964, "Amharic Basic Course", units 3 to 6; their order and the least lengths are ours.
"""

from __future__ import annotations

import re
from functools import lru_cache

RULES = "1"  # the version of what follows; raise it with every change of a term
SHORTEST = (2, 3)  # consonants that remain without a suffix, and without a prefix

# Rows of eight letters: a consonant with each of its vowels, the sixth without any, the eighth with wa.
_VOWELS = ("e", "u", "i", "a", "E", "", "o", "Wa")
_ROWS = range(0x1200, 0x1358, 8)
_SAME_ROWS = {0x1210: 0x1200, 0x1280: 0x1200, 0x12B8: 0x1200, 0x1220: 0x1230, 0x12D0: 0x12A0, 0x1340: 0x1338}
_LABIAL_ROWS = {0x1248: 0x1240, 0x1288: 0x1200, 0x12B0: 0x12A8, 0x12C0: 0x1200, 0x1310: 0x1308}
_LABIAL_VOWELS = {0: "o", 2: "Wi", 3: "Wa", 4: "WE", 5: "u"}
_OPEN_ROWS = (0x1200, 0x12A0)  # h and the glottal stop: the first order is pronounced as the fourth

# In sounds: a consonant is the sixth letter of its row, a vowel a Latin letter.
PREFIXES = ("ይe", "ብe", "ልe", "ክe", "ውeድe", "ስልe", "እስክe", "እንድe", "ብeስትe", "ይaልe", "እይe")
SUFFIXES = (
    *("ንa", "ም", "ን"),  # and; also; object
    *("u", "ው", "ውa", "Wa", "iትu", "ይትu"),  # the, his, her
    *("E", "ይE", "aችን", "ይaችን", "aችህu", "ይaችህu", "aችeው", "ይaችeው"),  # my, our, your, their
    *("oች", "ውoች", "oችE", "ይaን"),  # plural
)


def _sounds_of_letters() -> dict[int, str]:
    sounds = {}
    for row in _ROWS:
        kept = _LABIAL_ROWS.get(row) or _SAME_ROWS.get(row, row)
        vowels = _LABIAL_VOWELS if row in _LABIAL_ROWS else dict(enumerate(_VOWELS))
        for order, vowel in vowels.items():
            if kept in _OPEN_ROWS and vowel in ("e", "a"):
                vowel = "a"
            sounds[row + order] = chr(kept + 5) + vowel
    sounds[0x12A7] = sounds[0x12A0]
    sounds[0x12C9], sounds[0x12EA] = "ው", "ይ"  # wu and yi are written for w and y
    return sounds


_SOUNDS = _sounds_of_letters()
_VARIANTS = {0x12C9, 0x12EA, 0x12A7} | {row + i for row in _SAME_ROWS | _LABIAL_ROWS for i in range(8)}
_LETTERS = {sound: chr(letter) for letter, sound in reversed(_SOUNDS.items()) if letter not in _VARIANTS}
_SYLLABLE = re.compile("[ሀ-ፗ](?:W?[euiaEo])?")
_WA = re.compile("u(?:ውa|እa)")


def _alternatives(affixes: tuple[str, ...]) -> str:
    return "|".join(sorted(affixes, key=len, reverse=True))


_PREFIX = re.compile(f"(?:{_alternatives(PREFIXES)})(?=[ሀ-ፗ])")
_SUFFIX = re.compile(f"(?:{_alternatives(SUFFIXES)})$")


@lru_cache(1 << 16)
def amharic_stem(word: str) -> str:
    """The stem of a normalised word in Ethiopic letters, spelled in one way; any other word as it is."""
    if any(ord(letter) not in _SOUNDS for letter in word):
        return word
    sounds = _WA.sub("Wa", word.translate(_SOUNDS))
    while (found := _SUFFIX.search(sounds)) and _consonants(sounds[: found.start()]) >= SHORTEST[0]:
        sounds = sounds[: found.start()]
    while (found := _PREFIX.match(sounds)) and _consonants(sounds[found.end() :]) >= SHORTEST[1]:
        sounds = sounds[found.end() :]
    return _SYLLABLE.sub(lambda syllable: _LETTERS.get(syllable[0], syllable[0]), sounds)


def _consonants(sounds: str) -> int:
    return sum("ሀ" <= sound <= "ፗ" for sound in sounds)
