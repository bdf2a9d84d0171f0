"""From texts to rows of ids: prefixes, markers, truncation, [MASK] expansion and padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Int32

from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.errors import InputError

NO_TOKEN = -1  # fills rows up: many published models pad with an id that is also a real token


def check_types(config: Any) -> None:
    """InputError where a field of a dataclass is not of the type of its default."""
    for field in fields(config):
        value, kind = getattr(config, field.name), type(field.default)
        if type(value) is not kind:
            fix = f"Give a value like {field.default!r}."
            raise InputError(field.name, f"{value!r} is not of type {kind.__name__}", fix)


@dataclass(frozen=True)
class TextConfig:
    """How queries and passages become ids.

    Attributes:
      query_prefix: goes before each query's text, an instruction for example; both are tokenised together.
      passage_prefix: goes before each passage's text.
      title_separator: stands between a passage's title and its text.
      query_max_len: ids in a query, markers included.
      passage_max_len: ids in a passage, markers included.
      query_expansion: fill queries up with [MASK] (ColBERT, section 3.2).
      query_marker: a piece of the vocabulary, put between the tokeniser's `begin` and the query; "" for none.
      passage_marker: the same for passages.
      expansion_piece: what queries are filled up with; "" for the tokeniser's own [MASK].
      expansion_len: ids that queries are filled up to, longer ones staying as they are; 0 for `query_max_len`.
      strip: drop white space at both ends of prefix and text (sentence-transformers before 6).
      lowercase: spell prefix and text in small letters, character by character.
    """

    query_prefix: str = ""
    passage_prefix: str = ""
    title_separator: str = " "
    query_max_len: int = 32
    passage_max_len: int = 256
    query_expansion: bool = True
    query_marker: str = "[Q]"
    passage_marker: str = "[D]"
    expansion_piece: str = ""
    expansion_len: int = 0
    strip: bool = False
    lowercase: bool = False

    def __post_init__(self):
        check_types(self)
        for name, marker in (("query_max_len", self.query_marker), ("passage_max_len", self.passage_marker)):
            shortest = 4 if marker else 3  # [CLS], the marker, one token and [SEP]
            if getattr(self, name) < shortest:
                fix = f"Give at least {shortest}: the markers and one token."
                raise InputError(name, f"{getattr(self, name)} is too short", fix)
        if not 0 <= self.expansion_len <= self.query_max_len:
            fix = f"Give a number from 0 to query_max_len={self.query_max_len}."
            raise InputError("expansion_len", f"{self.expansion_len} is out of range", fix)

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


def query_ids(tokenizer: TextTokenizer, config: TextConfig, texts: Sequence[str]) -> list[list[int]]:
    """Begin, marker, prefix and text, end, cut to `query_max_len`; with expansion, filled up to `expansion_len`.

    Raises:
      InputError: the vocabulary lacks the marker, there is nothing to expand with, or no room for a token.
    """
    rows = _frame(tokenizer, config, "query").rows(tokenizer, config, config.query_prefix, texts)
    if config.query_expansion:
        filler, width = expansion_id(tokenizer, config), config.expansion_len or config.query_max_len
        rows = [row + [filler] * (width - len(row)) for row in rows]
    return rows


def passage_ids(tokenizer: TextTokenizer, config: TextConfig, texts: Sequence[str]) -> list[list[int]]:
    """Begin, marker, prefix and text, end, cut to `passage_max_len`; the texts come from `passage_text`.

    InputError as `query_ids`.
    """
    return _frame(tokenizer, config, "passage").rows(tokenizer, config, config.passage_prefix, texts)


def prompt_lengths(tokenizer: TextTokenizer, config: TextConfig) -> tuple[int, int]:
    """Ids up to the end of the prefix: of a query and of a passage; 0 where there is no prefix. InputError as above."""
    plain, end = replace(config, query_expansion=False), len(tokenizer.end)
    query = len(query_ids(tokenizer, plain, [""])[0]) - end if config.query_prefix else 0
    passage = len(passage_ids(tokenizer, plain, [""])[0]) - end if config.passage_prefix else 0
    return query, passage


def passage_spans(tokenizer: TextTokenizer, config: TextConfig, text: str) -> list[tuple[int, int]]:
    """Where each id of `passage_ids([text])` stands: [begin, end) in characters of the text, without the prefix.

    Markers, and pieces of the prefix alone, have empty spans. InputError as `query_ids`.
    """
    frame, shift = _frame(tokenizer, config, "passage"), len(config.passage_prefix)
    characters = _characters(config, config.passage_prefix + text)
    places = [place for place, _ in characters]
    inside = []
    for begin, end in frame.cut(tokenizer.spans("".join(character for _, character in characters))):
        first, stop = (places[begin], places[end - 1] + 1) if begin < end else (shift, shift)
        inside.append((max(0, first - shift), max(0, stop - shift)))
    return [(0, 0)] * len(frame.before) + inside + [(0, 0)] * len(frame.after)


def expansion_id(tokenizer: TextTokenizer, config: TextConfig) -> int:
    """The id that queries are filled up with; InputError where the vocabulary has none."""
    if config.expansion_piece:
        return _known(tokenizer, "expansion_piece", config.expansion_piece)
    if tokenizer.mask_id is None:
        fix = "Set query_expansion to False, or name an expansion_piece."
        raise InputError("query_expansion", "this tokeniser has no [MASK] to fill queries up with", fix)
    return tokenizer.mask_id


def padded(rows: Sequence[Sequence[int]], length: int | None = None, multiple: int = 1) -> Int32[np.ndarray, "n l"]:
    """Rows of ids as one array, filled with NO_TOKEN.

    Args:
      rows: n rows of ids.
      length: l; the longest row by default. ValueError where a row is longer.
      multiple: l is rounded up to a multiple of it.
    """
    longest = max(map(len, rows), default=0)
    width = longest if length is None else length
    if longest > width:
        raise ValueError(f"a row of {longest} ids does not fit into {width}")
    array = np.full((len(rows), -(-width // multiple) * multiple), NO_TOKEN, np.int32)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return array


@dataclass(frozen=True)
class _Frame:
    """What stands around the `room` ids of a text."""

    before: list[int]
    after: list[int]
    room: int
    from_left: bool

    def cut(self, row: list[Any]) -> list[Any]:
        return row[-self.room :] if self.from_left else row[: self.room]

    def rows(self, tokenizer: TextTokenizer, config: TextConfig, prefix: str, texts: Sequence[str]) -> list[list[int]]:
        whole = [prefix + text for text in texts]
        if config.strip or config.lowercase:
            whole = ["".join(character for _, character in _characters(config, text)) for text in whole]
        return [[*self.before, *self.cut(row), *self.after] for row in tokenizer.encode(whole)]


def _frame(tokenizer: TextTokenizer, config: TextConfig, side: str) -> _Frame:
    settings = config.to_dict()
    name, piece, length = f"{side}_marker", settings[f"{side}_marker"], settings[f"{side}_max_len"]
    before, after = list(tokenizer.begin), list(tokenizer.end)
    if piece:
        before.append(_known(tokenizer, name, piece))
    room = length - len(before) - len(after)
    if room < 1:
        problem = f"{length} is too short"
        raise InputError(f"{side}_max_len", problem, f"Give at least {length - room + 1}: the markers and one token.")
    return _Frame(before, after, room, tokenizer.truncation_side == "left")


def _known(tokenizer: TextTokenizer, setting: str, piece: str) -> int:
    if (found := tokenizer.token_id(piece)) is None:
        fix = f'Choose a piece of this vocabulary, or {setting}="" for none.'
        raise InputError(setting, f"{piece!r} is not in the vocabulary", fix)
    return found


def _characters(config: TextConfig, text: str) -> list[tuple[int, str]]:
    """The characters that are tokenised, each with the place in the text that it comes from."""
    begin, end = 0, len(text)
    if config.strip:
        begin = end - len(text.lstrip())
        end = max(begin, len(text.rstrip()))
    kept = enumerate(text[begin:end], begin)
    if not config.lowercase:
        return list(kept)
    return [(place, small) for place, character in kept for small in character.lower()]
