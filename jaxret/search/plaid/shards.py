"""A compressed corpus dealt out to the devices of a mesh, each with inverted lists of its own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Int

from jaxret.errors import InputError
from jaxret.ops.compressed_maxsim import Compressed
from jaxret.ops.topk import EMPTY
from jaxret.search.plaid.index import PlaidIndex, inverted_lists


class Shard(NamedTuple):
    """One device's documents, the shortest first; behind the last one an empty document stands for "none".

    Document `i` of device `r` of `n` is number `i * n + r` of all documents in the order of their lengths, so that the
    devices have equal work, and so that comparing numbers is the same whatever `n` is.

    Attributes:
      tokens: of all its documents.
      starts, lengths: of each document in `tokens`.
      positions: of each document in the corpus; EMPTY for none.
      listed: documents by centroid, ascending.
      list_starts: where each centroid's list starts; behind the last an empty list stands for "no centroid".
    """

    tokens: Compressed
    starts: Int[Array, " d"] | Int[np.ndarray, "n d"]
    lengths: Int[Array, " d"] | Int[np.ndarray, "n d"]
    positions: Int[Array, " d"] | Int[np.ndarray, "n d"]
    listed: Int[Array, " i"] | Int[np.ndarray, "n i"]
    list_starts: Int[Array, " c"] | Int[np.ndarray, "n c"]


def shards(index: PlaidIndex, devices: int) -> Shard:
    """The shards of all devices, stacked on a new first axis and padded to equal sizes.

    Raises:
      InputError: more tokens on a device than 32-bit positions can tell apart.
    """
    held = np.flatnonzero(index.lengths)
    order = held[np.argsort(index.lengths[held], kind="stable")]
    parts = [_shard(index, order[device::devices]) for device in range(devices)]
    documents = -(-len(order) // devices) + 1
    tokens = max(1, *(len(part.tokens.codes) for part in parts))
    entries = max(1, *(len(part.listed) for part in parts))
    if max(tokens, entries) >= EMPTY:
        fix = "Search it on more devices."
        raise InputError("index", f"{tokens} tokens on one device, which counts to {EMPTY - 1}", fix)

    def stacked(name: str, size: int, fill: int) -> np.ndarray:
        return np.stack([_filled(getattr(part, name), size, fill) for part in parts])

    return Shard(
        Compressed(
            np.stack([_filled(part.tokens.codes, tokens, 0) for part in parts]),
            np.stack([_filled(part.tokens.residuals, tokens, 0) for part in parts]),
        ),
        stacked("starts", documents, 0),
        stacked("lengths", documents, 0),
        stacked("positions", documents, EMPTY),
        stacked("listed", entries, 0),
        np.stack([part.list_starts for part in parts]),
    )


def _shard(index: PlaidIndex, rows: Int[np.ndarray, " d"]) -> Shard:
    """The shard that holds some documents."""
    lengths, starts = index.lengths[rows], np.zeros(len(rows), np.int64)
    np.cumsum(lengths[:-1], out=starts[1:])
    flat = np.repeat(index.starts[rows] - starts, lengths) + np.arange(int(lengths.sum()))
    codes = index.codes[flat]
    number = len(index.codec.centroids)
    listed, sizes = inverted_lists(codes, np.repeat(np.arange(len(rows)), lengths), number)
    list_starts = np.concatenate([[0], np.cumsum(sizes), [len(listed)]]).astype(np.int32)
    small = (part.astype(np.int32) for part in (starts, lengths, rows))
    return Shard(Compressed(codes, index.residuals[flat]), *small, listed, list_starts)


def _filled(array: np.ndarray, size: int, fill: int) -> np.ndarray:
    """With `fill` up to `size` rows."""
    return np.concatenate([array, np.full((size - len(array), *array.shape[1:]), fill, array.dtype)])
