"""How long passages are, worked out once, and queries divided by the longest passage that each can draw."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from jaxret.data.preprocessors import SIDES
from jaxret.data.tables import Column, Content, prepared, table
from jaxret.data.tensorflow_cpu import tf
from jaxret.data.text import TextConfig, passage_ids, passage_text
from jaxret.data.text_tokenizer import TextTokenizer

COLUMNS = {"length": Column(tf.int64)}
AT_ONCE = 1024  # passages
Rows = Mapping[str, tf.Tensor | tf.RaggedTensor]


def passage_lengths(passages: Iterable[str], tokenizer: TextTokenizer, text: TextConfig) -> Iterator[int]:
    """Ids of each passage, at most `passage_max_len`; the passages come from `text.passage_text`."""
    left = iter(passages)
    while chunk := list(islice(left, AT_ONCE)):
        yield from map(len, passage_ids(tokenizer, text, chunk))


def document_lengths(
    fingerprint: str, documents: Rows, tokenizer: TextTokenizer, text: TextConfig, cache_dir: str | Path
) -> Int64[np.ndarray, " c"]:
    """Ids of each document as a passage, at most `passage_max_len`; found in the cache or first written there.

    Args:
      fingerprint: the source's.
      documents: {title, text} of its documents.
      tokenizer, text: how a passage becomes ids.
      cache_dir: see `tables.prepared`.
    """

    def records() -> Iterator[dict[str, Any]]:
        pairs = zip(*(documents[name].numpy() for name in ("title", "text")), strict=True)
        passages = (passage_text(title.decode(), words.decode(), text.title_separator) for title, words in pairs)
        return ({"length": length} for length in passage_lengths(passages, tokenizer, text))

    content = f"{fingerprint} {tokenizer.fingerprint} {text}"
    name = f"lengths-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    found = prepared(cache_dir, name, COLUMNS, lambda: Content({"documents": records()}))
    return table(found, "documents")["length"].numpy()


def longest_passages(queries: Rows, lengths: Int64[np.ndarray, " c"], negatives: bool) -> Int64[np.ndarray, " b"]:
    """The length of the longest passage that each query can draw, negatives among them or not."""
    sides = SIDES if negatives else SIDES[:1]
    most = [tf.reduce_max(tf.gather(tf.constant(lengths), queries[side]), axis=1).numpy() for side in sides]
    return np.max(most, axis=0)


def divided(queries: Rows, longest: Int64[np.ndarray, " b"], edges: Sequence[int]) -> list[Rows]:
    """The queries of each bucket, in order: those whose longest passage fits; all that fit nowhere are in the last."""
    numbers = np.searchsorted(np.array(edges[:-1], np.int64), longest, side="left")
    places = [np.flatnonzero(numbers == bucket) for bucket in range(len(edges))]
    return [{name: tf.gather(values, rows) for name, values in queries.items()} for rows in places]
