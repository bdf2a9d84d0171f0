"""Queries in batches of static shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxret.ops.block_scores import QueryTokens
from jaxret.search.vectors import Vectors

# Sizes of a batch, the smaller where it holds all queries; never 1, for which a CPU's products have other bits.
BATCH = (8, 64)
LENGTH = 8  # what the tokens of a query are a multiple of
PORTION_BYTES = 2**28


def query_batches(
    mode: str, queries: Vectors, vocab_size: int = 0, most: int = BATCH[1]
) -> Iterator[tuple[list[Any], list[np.ndarray]]]:
    """Portions of the queries that fit in memory beside the corpus: batches, and which queries each of them holds.

    A batch is what `ops.block_scores` takes; rows past its last query repeat its first. Queries of tokens come in the
    order of their lengths, longest first, and a batch is as long as its longest asks for: a length for each octave, and
    that of the longest of all.

    Args:
      mode: "dense", "lexical" or "multi_vector".
      queries: their vectors.
      vocab_size: length of a lexical vector.
      most: queries of tokens in a batch.
    """
    few, many = BATCH
    order = np.arange(len(queries))
    if mode == "multi_vector":
        many = min(many, most)
        order = np.argsort(-queries.needed("tokens").lengths, kind="stable")
    size = few if len(queries) <= few else many
    batches, chosen, held = list[Any](), list[np.ndarray](), 0
    for start in range(0, len(queries), size):
        mine = order[start : start + size]
        rows = np.concatenate([mine, np.full(size - len(mine), mine[0])])
        batch = _MAKERS[mode](queries, rows, vocab_size)
        held += sum(part.nbytes for part in (batch if isinstance(batch, tuple) else (batch,)))
        batches.append(batch)
        chosen.append(mine)
        if held >= PORTION_BYTES:
            yield batches, chosen
            batches, chosen, held = [], [], 0
    if batches:
        yield batches, chosen


def _dense(queries: Vectors, rows: np.ndarray, _: int) -> np.ndarray:
    return queries.needed("dense")[rows]


def _lexical(queries: Vectors, rows: np.ndarray, vocab_size: int) -> np.ndarray:
    ids, weights = queries.needed("term_ids"), queries.needed("term_weights")
    dense = np.zeros((vocab_size, len(rows)), np.float32)
    for place, row in enumerate(rows.tolist()):
        dense[ids.row(row), place] = weights.row(row)
    return dense


def _multi_vector(queries: Vectors, rows: np.ndarray, _: int) -> QueryTokens:
    tokens = queries.needed("tokens")
    lengths = tokens.lengths
    wanted, longest = (max(1, -(-int(part.max()) // LENGTH)) for part in (lengths[rows], lengths))
    length = LENGTH * min(longest, 1 << (wanted - 1).bit_length())
    return QueryTokens(tokens.padded(rows, length), np.arange(length)[None, :] < lengths[rows][:, None])


_MAKERS = {"dense": _dense, "lexical": _lexical, "multi_vector": _multi_vector}
