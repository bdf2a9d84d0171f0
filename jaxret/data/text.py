"""From texts to rows of ids: prefixes, markers, truncation, [MASK] expansion and padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Int32

from jaxret.data.tokenizer import CLS, DOCUMENT, MASK, PAD, QUERY, SEP, Tokenizer
from jaxret.errors import InputError

_MARKERS = 3  # [CLS], [Q] or [D], and [SEP]


@dataclass(frozen=True)
class TextConfig:
    """How queries and passages become ids.

    Attributes:
      query_prefix: goes before each query's text, an instruction for example.
      passage_prefix: goes before each passage's text.
      title_separator: stands between a passage's title and its text.
      query_max_len: ids in a query, markers included.
      passage_max_len: ids in a passage, markers included.
      query_expansion: fill queries up to `query_max_len` with [MASK] (ColBERT, section 3.2).
    """

    query_prefix: str = ""
    passage_prefix: str = ""
    title_separator: str = " "
    query_max_len: int = 32
    passage_max_len: int = 256
    query_expansion: bool = True

    def __post_init__(self):
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if type(value) is not kind:
                fix = f"Give a value like {field.default!r}."
                raise InputError(field.name, f"{value!r} is not of type {kind.__name__}", fix)
        for name in ("query_max_len", "passage_max_len"):
            if getattr(self, name) <= _MARKERS:
                fix = f"Give at least {_MARKERS + 1}: the three markers and one token."
                raise InputError(name, f"{getattr(self, name)} is too short", fix)

    def to_dict(self) -> dict[str, Any]:
        """Its settings as a plain dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TextConfig:
        """The opposite of `to_dict`; settings left out take their defaults, InputError for an unknown one."""
        names = [field.name for field in fields(cls)]
        for name in settings:
            if name not in names:
                raise InputError("text settings", f"unknown setting {name!r}", f"Choose from {', '.join(names)}.")
        return cls(**settings)


def passage_text(title: str, text: str, separator: str) -> str:
    """Title, separator and text as one, without white space at the ends (BEIR's rule)."""
    return (title + separator + text).strip()


def query_ids(tokenizer: Tokenizer, config: TextConfig, texts: Sequence[str]) -> list[list[int]]:
    """[CLS] [Q] prefix and text [SEP], cut to `query_max_len`; with expansion, filled up to it with [MASK]."""
    rows = _marked(tokenizer, QUERY, config.query_prefix, texts, config.query_max_len)
    if config.query_expansion:
        rows = [row + [MASK] * (config.query_max_len - len(row)) for row in rows]
    return rows


def passage_ids(tokenizer: Tokenizer, config: TextConfig, texts: Sequence[str]) -> list[list[int]]:
    """[CLS] [D] prefix and text [SEP], cut to `passage_max_len`; the texts come from `passage_text`."""
    return _marked(tokenizer, DOCUMENT, config.passage_prefix, texts, config.passage_max_len)


def padded(rows: Sequence[Sequence[int]], length: int | None = None, multiple: int = 1) -> Int32[np.ndarray, "n l"]:
    """Rows of ids as one array, filled with [PAD].

    Args:
      rows: n rows of ids.
      length: l; the longest row by default. ValueError where a row is longer.
      multiple: l is rounded up to a multiple of it.
    """
    longest = max(map(len, rows), default=0)
    width = longest if length is None else length
    if longest > width:
        raise ValueError(f"a row of {longest} ids does not fit into {width}")
    array = np.full((len(rows), -(-width // multiple) * multiple), PAD, np.int32)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return array


def _marked(tokenizer: Tokenizer, marker: int, prefix: str, texts: Sequence[str], length: int) -> list[list[int]]:
    rows = tokenizer.encode([prefix + text for text in texts])
    return [[CLS, marker, *row[: length - _MARKERS], SEP] for row in rows]
