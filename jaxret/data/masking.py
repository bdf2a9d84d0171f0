"""Masked copies of rows of ids, for masked language modelling and RetroMAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int, Int32

from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.data.word_starts import word_starts
from jaxret.errors import InputError

Rows = dict[str, Int32[np.ndarray, "..."]]


@dataclass(frozen=True)
class Words:
    """What masking needs to know of a vocabulary of `v` ids.

    Attributes:
      starts: which begin a word, see `word_starts`.
      ordinary: which stand for text.
      mask_id: [MASK].
    """

    starts: Bool[np.ndarray, " v"]
    ordinary: Bool[np.ndarray, " v"]
    mask_id: int

    @classmethod
    def of(cls, tokenizer: TextTokenizer, whole_words: bool = True) -> Words:
        """Those of a tokeniser; every piece is a word if not `whole_words`. InputError where it has no [MASK]."""
        if tokenizer.mask_id is None:
            raise InputError("masking", "this tokeniser has no [MASK]", "Choose a model with one.")
        ordinary = np.ones(tokenizer.size, np.bool_)
        ordinary[[i for i in tokenizer.special_ids if i < tokenizer.size]] = False
        starts = word_starts(tokenizer) if whole_words else np.ones(tokenizer.size, np.bool_)
        return cls(starts, ordinary, tokenizer.mask_id)


def drawn_words(
    ids: Int32[np.ndarray, " l"], words: Words, rate: float, random: np.random.Generator
) -> Bool[np.ndarray, " l"]:
    """Positions of whole words drawn at random, `rate` of all ordinary ids together.

    Words are taken in random order, those left out that would make it more (BERT's whole-word masking). At least one
    id, unless every word is longer than the number. Special ids and padding (negative) are never drawn.
    """
    where = np.zeros(len(ids), np.bool_)
    places = np.flatnonzero((ids >= 0) & words.ordinary[ids])
    if not len(places):
        return where
    begins = words.starts[ids[places]] | (np.diff(places, prepend=-2) > 1)
    spans = np.split(places, np.flatnonzero(begins)[1:])
    left = max(1, round(rate * len(places)))
    for word in random.permutation(len(spans)):
        if len(spans[word]) <= left:
            where[spans[word]] = True
            left -= len(spans[word])
        if not left:
            break
    return where


def corrupted(
    ids: Int32[np.ndarray, " l"],
    where: Bool[np.ndarray, " l"],
    words: Words,
    replacement: Sequence[float],
    random: np.random.Generator,
) -> Int32[np.ndarray, " l"]:
    """The ids with those at `where` replaced: by [MASK], by a random ordinary id, or not at all.

    Args:
      ids, where: a row, and what may be replaced.
      words: of the vocabulary.
      replacement: the chances of the three.
      random: decides for each id alone.
    """
    fate = np.searchsorted(np.cumsum(replacement)[:2], random.random(len(ids)), side="right")
    others = random.choice(np.flatnonzero(words.ordinary), len(ids))
    return np.where(where, np.choose(fate, [words.mask_id, others, ids]), ids).astype(np.int32)


@dataclass(frozen=True)
class MaskedLM:
    """`masked` [b l], the ids with some replaced, and `where` [b l], 1 where they are to be predicted.

    Attributes:
      rate: share of the ordinary ids to predict.
      whole_words: draw words, not pieces.
      replacement: chances that an id to predict becomes [MASK], a random ordinary id, or stays (BERT's 80/10/10).
    """

    rate: float = 0.15
    whole_words: bool = True
    replacement: Sequence[float] = (0.8, 0.1, 0.1)

    ranks: ClassVar[Mapping[str, int]] = {"masked": 2, "where": 2}

    def __post_init__(self):
        if not 0 < self.rate < 1:
            raise InputError("masking", f"rate {self.rate} is no share", "Give a number between 0 and 1.")
        shares = np.array(self.replacement)
        if shares.shape != (3,) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
            fix = "Give three chances that add up to 1: of [MASK], of a random id, of the id itself."
            raise InputError("masking", f"replacement {self.replacement} is no distribution", fix)

    def words(self, tokenizer: TextTokenizer) -> Words:
        """What it needs to know of a tokeniser's vocabulary; see `Words.of`."""
        return Words.of(tokenizer, self.whole_words)

    def rows(self, ids: Int32[np.ndarray, "m l"], seeds: Int[np.ndarray, "m 2"], words: Words) -> Rows:
        """{name: [m ...]} as `ranks` says (m is one of the axes); a row depends on its ids and its seed alone."""
        masked, where = np.empty_like(ids), np.empty(ids.shape, np.int32)
        for i, (row, seed) in enumerate(zip(ids, seeds, strict=True)):
            random = np.random.default_rng([*map(int, seed), 0])
            drawn = drawn_words(row, words, self.rate, random)
            where[i], masked[i] = drawn, corrupted(row, drawn, words, self.replacement, random)
        return {"masked": masked, "where": where}


@dataclass(frozen=True)
class RetroMAE(MaskedLM):
    """`encoder_ids` and `encoder_where` [b l] as MaskedLM's, and `decoder_seed` [b] (RetroMAE, Xiao et al. 2022).

    The decoder's own masks are made of the seed on the device: a matrix for each row.
    """

    rate: float = 0.3

    ranks: ClassVar[Mapping[str, int]] = {"encoder_ids": 2, "encoder_where": 2, "decoder_seed": 1}

    def rows(self, ids: Int32[np.ndarray, "m l"], seeds: Int[np.ndarray, "m 2"], words: Words) -> Rows:
        """See `MaskedLM.rows`."""
        masked = super().rows(ids, seeds, words)
        decoder = [np.random.default_rng([*map(int, seed), 1]).integers(2**31) for seed in seeds]
        seed = np.array(decoder, np.int32)
        return {"encoder_ids": masked["masked"], "encoder_where": masked["where"], "decoder_seed": seed}
