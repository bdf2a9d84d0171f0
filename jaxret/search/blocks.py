"""Documents in blocks of static shapes, as the devices score them: a block a device, at a time.

The shapes depend on nothing but a document's length and the kind of device, so any number of devices, and any part of a
corpus, scores a document in the same tile. A tile's tokens are a multiple of 128: products of such tiles have the same
bits whatever the tile's size (measured on an AMD EPYC; other widths take other kernels).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from jaxret.ops.block_scores import Rows, Terms, Tiles, dense_scores, lexical_scores
from jaxret.ops.topk import EMPTY
from jaxret.runtime.block_maxsim import multi_vector_scores
from jaxret.search.lengths import by_bucket
from jaxret.search.vectors import Vectors

WHOLE = 128  # what the tokens of a tile are a multiple of


class BlockSizes(NamedTuple):
    """How much a device is given at a time.

    Attributes:
      documents: of a block of dense or lexical vectors.
      tile_tokens: of a tile, about; a tile is one product.
      tiles: of a block.
      queries: of tokens, that are scored together; fewer are padded less where their lengths differ.
    """

    documents: int
    tile_tokens: int
    tiles: int
    queries: int = 64


# A CPU is fastest with products that its caches hold; an accelerator wants a millisecond's work at a time.
SIZES = {"cpu": BlockSizes(4096, 1024, 16, 32), "gpu": BlockSizes(32768, 4096, 64), "tpu": BlockSizes(32768, 4096, 64)}


class Group(NamedTuple):
    """A block for each device.

    Attributes:
      block: arrays with a leading axis of devices.
      positions: of its documents, ascending in each block; EMPTY for padding.
    """

    block: Any
    positions: Int32[np.ndarray, "devices c"]


Maker = Callable[[], Group]


def dense_groups(vectors: Vectors, first: int, devices: int, sizes: BlockSizes) -> Iterator[Maker]:
    """Groups of dense vectors; arguments as `multi_vector_groups`."""
    dense, scales = vectors.needed("dense"), vectors.dense_scales

    def made(rows: np.ndarray) -> Group:
        chosen = np.where(rows == EMPTY, 0, rows)
        return Group(Rows(dense[chosen], None if scales is None else scales[chosen]), _positions(rows, first))

    for rows in _blocked(np.arange(len(vectors)), sizes.documents, devices):
        yield partial(made, rows)


def lexical_groups(vectors: Vectors, first: int, devices: int, sizes: BlockSizes) -> Iterator[Maker]:
    """Groups of documents with about as many terms; arguments as `multi_vector_groups`."""
    ids, weights = vectors.needed("term_ids"), vectors.needed("term_weights")

    def made(rows: np.ndarray, length: int) -> Group:
        chosen = np.where(rows == EMPTY, rows[0, 0], rows).reshape(-1)
        values = weights.padded(chosen, length)
        values[np.arange(length)[None, :] >= ids.lengths[chosen][:, None]] = 0.0
        shape = (*rows.shape, length)
        return Group(Terms(ids.padded(chosen, length).reshape(shape), values.reshape(shape)), _positions(rows, first))

    for length, members in by_bucket(ids.lengths):
        for rows in _blocked(members, sizes.documents, devices):
            yield partial(made, rows, length)


def multi_vector_groups(vectors: Vectors, first: int, devices: int, sizes: BlockSizes) -> Iterator[Maker]:
    """Groups of documents of about the same length, each yet to be made, which copies its vectors.

    Args:
      vectors: of some documents.
      first: the position of the first of them.
      devices: how many there are.
      sizes: of a block.
    """
    tokens, scales = vectors.needed("tokens"), vectors.token_scales

    def made(rows: np.ndarray, length: int, documents: int) -> Group:
        chosen = np.where(rows == EMPTY, rows[0, 0], rows).reshape(-1)
        shape = (devices, sizes.tiles, documents, length)
        used = np.any(rows.reshape(shape[:3]) != EMPTY, axis=-1)
        values = tokens.padded(chosen, length).reshape(*shape, -1)
        block = Tiles(values, used, None if scales is None else scales.padded(chosen, length).reshape(shape))
        return Group(block, _positions(rows, first))

    for length, members in by_bucket(tokens.lengths):
        documents = tile_documents(length, sizes.tile_tokens)
        for rows in _blocked(members, sizes.tiles * documents, devices):
            yield partial(made, rows, length, documents)


def block_rows(mode: str, lengths: np.ndarray, devices: int, sizes: BlockSizes) -> int:
    """Rows of vectors, or terms, that a device holds of some documents in blocks, padding included.

    Args:
      mode: "dense", "lexical" or "multi_vector".
      lengths: rows of each document.
      devices: that share the documents.
      sizes: of a block.
    """
    if mode == "dense":
        return -(-len(lengths) // (sizes.documents * devices)) * sizes.documents
    rows = 0
    for length, members in by_bucket(lengths):
        tiled = mode == "multi_vector"
        documents = sizes.tiles * tile_documents(length, sizes.tile_tokens) if tiled else sizes.documents
        rows += -(-len(members) // (documents * devices)) * documents * length
    return rows


def tile_documents(length: int, tile_tokens: int) -> int:
    """How many documents of a length make a tile."""
    step = WHOLE // math.gcd(length, WHOLE)
    return step * max(1, round(tile_tokens / (length * step)))


class Mode(NamedTuple):
    """How a representation is searched.

    Attributes:
      arrays: of `Vectors`, that are needed.
      score: `(queries, block) -> [b c]`.
      groups: cuts vectors into blocks.
    """

    arrays: tuple[str, ...]
    score: Callable[..., Any]
    groups: Callable[[Vectors, int, int, BlockSizes], Iterator[Maker]]


MODES = {
    "dense": Mode(("dense", "dense_scales"), dense_scores, dense_groups),
    "lexical": Mode(("term_ids", "term_weights"), lexical_scores, lexical_groups),
    "multi_vector": Mode(("tokens", "token_scales"), multi_vector_scores, multi_vector_groups),
}


def _blocked(members: np.ndarray, size: int, devices: int) -> Iterator[Int32[np.ndarray, "devices c"]]:
    """Rows in blocks, one a device, the last ones shared out evenly and filled up with EMPTY."""
    for start in range(0, len(members), size * devices):
        rows = np.full((devices, size), EMPTY, np.int32)
        for block, mine in zip(rows, np.array_split(members[start : start + size * devices], devices), strict=True):
            block[: len(mine)] = mine
        yield rows


def _positions(rows: np.ndarray, first: int) -> Int32[np.ndarray, "devices c"]:
    return np.where(rows == EMPTY, EMPTY, rows + np.int32(first))
