"""A query and a passage in one row of ids, as a cross-encoder reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from jaxret.data.text import check_types, padded
from jaxret.data.text_tokenizer import PairFrame, TextTokenizer
from jaxret.errors import InputError

TRUNCATIONS = ("longest_first", "only_second")


@dataclass(frozen=True)
class PairConfig:
    """How a query and a passage become one row.

    Attributes:
      max_len: ids in a row, those around the texts included.
      truncation: which text is cut where both together are too long, as transformers names them: "longest_first" cuts
        the longer one down to the other's length, then both alike; "only_second" the passage, and the query only where
        it is too long by itself.
      title_separator: stands between a passage's title and its text.
    """

    max_len: int = 512
    truncation: str = "longest_first"
    title_separator: str = " "

    def __post_init__(self):
        check_types(self)
        if self.truncation not in TRUNCATIONS:
            raise InputError("truncation", f"unknown {self.truncation!r}", f"Choose one of {', '.join(TRUNCATIONS)}.")

    def to_dict(self) -> dict[str, Any]:
        """Its settings as a plain dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> PairConfig:
        """The opposite of `to_dict`."""
        return cls(**settings)


class PairRow(NamedTuple):
    """The ids of a query and a passage, and the token type of each."""

    ids: list[int]
    types: list[int]


def checked_frame(tokenizer: TextTokenizer, config: PairConfig) -> PairFrame:
    """What stands around the texts; InputError where it leaves no id for each of them."""
    frame = tokenizer.pair_frame
    if config.max_len < frame.size + 2:
        fix = f"Give at least {frame.size + 2}: one for each text, and what stands around them."
        raise InputError("max_len", f"{config.max_len} is too short", fix)
    return frame


def pair_rows(
    tokenizer: TextTokenizer, config: PairConfig, queries: Sequence[str], passages: Sequence[str]
) -> list[PairRow]:
    """The row of each query with the passage at its place, as transformers' tokenisers make it.

    Passages come from `data.text.passage_text`. Equal texts are tokenised once. InputError as `checked_frame`.
    """
    frame = checked_frame(tokenizer, config)
    texts = list(dict.fromkeys((*queries, *passages)))
    ids_of = dict(zip(texts, tokenizer.encode(texts), strict=True))
    left = tokenizer.truncation_side == "left"
    return [
        joined(frame, config, ids_of[query], ids_of[passage], left)
        for query, passage in zip(queries, passages, strict=True)
    ]


def joined(frame: PairFrame, config: PairConfig, query: list[int], passage: list[int], left: bool) -> PairRow:
    """The row of two texts' ids, cut at their ends, or at their beginnings if `left`."""
    sizes = kept_sizes(frame, config, len(query), len(passage))
    first, second = (ids[len(ids) - n :] if left else ids[:n] for ids, n in zip((query, passage), sizes, strict=True))
    whole = [
        *frame.before,
        *((token, frame.types[0]) for token in first),
        *frame.between,
        *((token, frame.types[1]) for token in second),
        *frame.after,
    ]
    return PairRow([token for token, _ in whole], [kind for _, kind in whole])


def kept_sizes(frame: PairFrame, config: PairConfig, first: int, second: int) -> tuple[int, int]:
    """How many ids of two texts of these lengths stay in the row."""
    room = config.max_len - frame.size
    if first + second <= room:
        return first, second
    if config.truncation == "only_second":
        first = min(first, room)
        return first, room - first
    half, odd = room // 2, room % 2
    if min(first, second) > half:
        more = frame.odd_to_first or first > second
        return (half + odd, half) if more else (half, half + odd)
    return (first, room - first) if first <= second else (room - second, second)


def padded_types(rows: Sequence[PairRow], length: int) -> Int32[np.ndarray, "n l"]:
    """Token types of rows as one array, 0 at padding."""
    return np.maximum(padded([row.types for row in rows], length), 0)
