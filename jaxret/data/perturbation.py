"""Pseudo-negatives: a text with a span deleted, or two spans swapped.

Granite Embedding (Awasthy et al. 2025) makes them of the positive where a query has no hard negative; it does
not say how long the spans are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

SHARE = 0.3  # of the units in the deleted span, or in each of the two that are swapped
LONGEST_WORD = 16  # characters in a word on average; where there are more, spaces do not separate words


def units(text: str) -> tuple[list[str], str]:
    """What spans are made of, and what joins it again: the words of a text, or its characters.

    It has words where spaces cut it into two or more that are short on average. Japanese, Chinese or Thai, where a
    space ends a phrase at most, is taken character by character.
    """
    words = text.split()
    if len(words) > 1 and len(text) <= LONGEST_WORD * len(words):
        return words, " "
    return list(text), ""


def deleted(parts: Sequence[str], begin: int, end: int) -> list[str]:
    """The parts without those from `begin` up to `end`."""
    return [*parts[:begin], *parts[end:]]


def swapped(parts: Sequence[str], first: tuple[int, int], second: tuple[int, int]) -> list[str]:
    """The parts with two spans, [begin, end) each and the first before the second, in each other's place."""
    (a, b), (c, d) = first, second
    return [*parts[:a], *parts[c:d], *parts[b:c], *parts[a:b], *parts[d:]]


def perturbed(text: str, seed: Sequence[int]) -> str:
    """The text with a random span deleted or two swapped, with equal chance; never the text itself.

    A single character leaves nothing behind. Where a swap would change nothing, a span is deleted.

    Args:
      text: not empty.
      seed: whole numbers, not negative, that alone decide what happens.
    """
    if not text:
        raise ValueError("an empty text cannot be changed")
    random = np.random.default_rng(seed)
    parts, joint = units(text)
    length = math.ceil(SHARE * len(parts))
    if len(parts) >= 2 * length and random.random() < 0.5:
        a, c = sorted(int(place) for place in random.integers(0, len(parts) - 2 * length + 1, 2))
        found = swapped(parts, (a, a + length), (c + length, c + 2 * length))
        if found != parts:
            return joint.join(found)
    begin = int(random.integers(0, len(parts) - length + 1))
    return joint.join(deleted(parts, begin, begin + length))
