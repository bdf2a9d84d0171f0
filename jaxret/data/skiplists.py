"""Which passage tokens take no part in MaxSim, by the rules of published models."""

from __future__ import annotations

import string
from collections.abc import Iterable

from jaxret.data.text_tokenizer import TextTokenizer


def colbert_skiplist(tokenizer: TextTokenizer) -> frozenset[int]:
    """Stanford ColBERT's: the first id of each symbol of ASCII, encoded alone.

    Its list also holds the symbols themselves, which no id is equal to.
    """
    return frozenset(row[0] for row in tokenizer.encode(list(string.punctuation)) if row)


def words_skiplist(tokenizer: TextTokenizer, words: Iterable[str]) -> frozenset[int]:
    """PyLate's and sentence-transformers': the ids of these pieces; words that are not in the vocabulary have none."""
    return frozenset(token for token in map(tokenizer.token_id, words) if token is not None)
