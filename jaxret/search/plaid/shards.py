"""A compressed corpus dealt out to the devices of a mesh, each with inverted lists of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

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
    starts: Int[Array, " d"]
    lengths: Int[Array, " d"]
    positions: Int[Array, " d"]
    listed: Int[Array, " i"]
    list_starts: Int[Array, " c"]


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

    def stacked(arrays: list[Any], size: int, fill: int = 0) -> Any:
        return np.stack([_filled(array, size, fill) for array in arrays])

    return Shard(
        Compressed(
            stacked([part.tokens.codes for part in parts], tokens),
            stacked([part.tokens.residuals for part in parts], tokens),
        ),
        stacked([part.starts for part in parts], documents),
        stacked([part.lengths for part in parts], documents),
        stacked([part.positions for part in parts], documents, EMPTY),
        stacked([part.listed for part in parts], entries),
        stacked([part.list_starts for part in parts], len(index.codec.centroids) + 2),
    )


def _shard(index: PlaidIndex, rows: Int[np.ndarray, " d"]) -> Shard:
    """The shard that holds some documents."""
    lengths, starts = index.lengths[rows], np.zeros(len(rows), np.int64)
    np.cumsum(lengths[:-1], out=starts[1:])
    flat = np.repeat(index.starts[rows] - starts, lengths) + np.arange(int(lengths.sum()))
    codes: Any = index.codes[flat]
    residuals: Any = index.residuals[flat]
    documents = np.repeat(np.arange(len(rows)), lengths)
    listed, sizes = inverted_lists(codes, documents, len(index.codec.centroids))
    list_starts = np.concatenate([[0], np.cumsum(sizes), [len(listed)]])
    small: list[Any] = [part.astype(np.int32) for part in (starts, lengths, rows, listed, list_starts)]
    return Shard(Compressed(codes, residuals), *small)


def _filled(array: Any, size: int, fill: int) -> Any:
    """With `fill` up to `size` rows."""
    return np.concatenate([array, np.full((size - len(array), *array.shape[1:]), fill, array.dtype)])
