"""Batches of queries with their passages, each passage in one row with its query: what a cross-encoder trains on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxret.data.pairs import PairConfig, PairRow, checked_frame, joined, padded_types
from jaxret.data.text import NO_TOKEN, TextConfig, padded
from jaxret.data.text_tokenizer import PairFrame, TextTokenizer

Batch = dict[str, np.ndarray]


def pair_batches(
    groups: Callable[..., Iterator[Batch]],
    tokenizer: TextTokenizer,
    text: PairConfig,
    *,
    query_max_len: int | None = None,
    **place: Any,
) -> Iterator[Batch]:
    """The batches of `groups`, `query` and `passage` replaced by pairs; all else (keys, teacher's scores) stays.

    | name | shape | |
    |---|---|---|
    | `pair` | [b n l] | int32: a query and one of its passages, the relevant one in column 0; see below for l |
    | `pair_types` | [b n l] | int32 token types, if the tokeniser gives any |

    The rows are those of `pair_rows`, but that of a query and a passage which are both longer than a whole pair the one
    of an odd number of ids may go to the other. l is `max_len`, or less where a query of `query_max_len` and a passage
    of the bucket's length need less.

    Args:
      groups: `data.batches.training_batches` with its sources and sizes bound.
      tokenizer, text: how a pair becomes ids.
      query_max_len: ids of a query alone, those around it included, longer ones are cut; None for `max_len`.
      place: what the trainer gives: batch size, seed, first batch, process, devices.

    Raises:
      InputError: `max_len` is too short, or as `groups`.
    """
    frame = checked_frame(tokenizer, text)
    whole = TextConfig(
        query_max_len=query_max_len or text.max_len,
        passage_max_len=text.max_len,
        title_separator=text.title_separator,
        query_marker="",
        passage_marker="",
        query_expansion=False,
    )
    batches = groups(tokenizer=tokenizer, text=whole, **place)
    return (_paired(batch, tokenizer, text, frame) for batch in batches)


def _paired(batch: Batch, tokenizer: TextTokenizer, text: PairConfig, frame: PairFrame) -> Batch:
    passages = batch["passage"]
    left = tokenizer.truncation_side == "left"

    def bare(row: np.ndarray) -> list[int]:
        ids = row[row != NO_TOKEN].tolist()
        return ids[len(tokenizer.begin) : len(ids) - len(tokenizer.end)]

    rows: list[PairRow] = []
    for query, group in zip(batch["query"], passages, strict=True):
        first = bare(query)
        rows += [joined(frame, text, first, bare(passage), left) for passage in group]
    around = frame.size - 2 * (len(tokenizer.begin) + len(tokenizer.end))
    length = min(text.max_len, batch["query"].shape[1] + passages.shape[2] + around)
    shape = (*passages.shape[:2], length)
    pairs = {"pair": padded([row.ids for row in rows], length).reshape(shape)}
    if frame.typed:
        pairs["pair_types"] = padded_types(rows, length).reshape(shape)
    return {name: array for name, array in batch.items() if name not in ("query", "passage")} | pairs
