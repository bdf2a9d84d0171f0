"""A compressed corpus dealt out to the devices of a mesh, each with inverted lists of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Int

from jaxret.errors import InputError
from jaxret.ops.compressed_maxsim import Compressed
from jaxret.ops.topk import EMPTY
from jaxret.search.plaid.files import release
from jaxret.search.plaid.index import CODE_BYTES, PlaidIndex, inverted_lists

ALIGNMENT = 64


class Shard(NamedTuple):
    """One device's documents, the shortest first; behind the last one an empty document stands for "none".

    Document `i` of device `r` of `n` is number `i * n + r` of all documents in the order of their lengths, so that the
    devices have equal work, and so that comparing numbers is the same whatever `n` is.

    Attributes:
      tokens: of all its documents.
      starts, lengths: of each document in `tokens`; an empty one starts at 0.
      positions: of each document in the corpus; EMPTY for none.
      listed: documents by centroid.
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

    Memory holds them, one chunk of the index, and the inverted lists once more.

    Raises:
      InputError: more tokens on a device than 32-bit positions can tell apart.
    """
    all_lengths = index.lengths
    held = np.flatnonzero(all_lengths)
    order = held[np.argsort(all_lengths[held], kind="stable")]
    documents = -(-len(order) // devices) + 1
    positions, lengths = np.full((documents, devices), EMPTY, np.int32), np.zeros((documents, devices), np.int32)
    positions.reshape(-1)[: len(order)], lengths.reshape(-1)[: len(order)] = order, all_lengths[order]
    ends = np.cumsum(lengths, axis=0, dtype=np.int64)
    tokens = max(1, int(ends[-1].max()))
    if tokens >= EMPTY:
        fix = "Search it on more devices."
        raise InputError("index", f"{tokens} tokens on one device, which counts to {EMPTY - 1}", fix)
    number = np.zeros(len(index), np.int64)
    number[order] = np.arange(len(order))
    compressed, lists = _dealt(index, number, ends - lengths, tokens)
    starts = np.where(lengths > 0, ends - lengths, 0)
    small: list[Any] = [part.T.astype(np.int32) for part in (starts, lengths, positions)]
    listed, list_starts = _padded_lists(*lists, devices)
    return Shard(compressed, small[0], small[1], small[2], listed, list_starts)


def held_bytes(index: PlaidIndex) -> int:
    """The most bytes that making the shards takes: themselves, and the inverted lists once more."""
    tokens = index.num_tokens
    lists = 2 * CODE_BYTES * tokens  # an entry for each token at most
    return tokens * (CODE_BYTES + index.codec.packed_width) + lists + 64 * len(index)


def _dealt(
    index: PlaidIndex, number: Int[np.ndarray, " d"], starts: Int[np.ndarray, "m r"], tokens: int
) -> tuple[Compressed, tuple[Int[np.ndarray, " i"], Int[np.ndarray, " l"]]]:
    """Every device's tokens, and the inverted lists of all devices, those of the first device first.

    Args:
      index: the corpus.
      number: of each document of it.
      starts: of each document in its device's tokens; document `n` has row `n // r` and column `n % r`.
      tokens: room for so many on a device.
    """
    devices, centroids = starts.shape[1], len(index.codec.centroids)
    codes = _aligned((devices, tokens), np.int32)
    residuals = _aligned((devices, tokens, index.codec.packed_width), np.uint8)

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        first = 0
        for chunk in index.chunks:
            own = number[first : first + len(chunk.lengths)]
            first += len(chunk.lengths)
            device, row = own % devices, own // devices
            begin = np.cumsum(chunk.lengths) - chunk.lengths
            places = np.repeat(device * tokens + starts[row, device] - begin, chunk.lengths)
            places += np.arange(len(places))
            codes.reshape(-1)[places] = chunk.codes
            residuals.reshape(-1, residuals.shape[2])[places] = chunk.residuals
            yield np.repeat(device * centroids, chunk.lengths) + chunk.codes, np.repeat(row, chunk.lengths)
            release(chunk)

    lists = inverted_lists(parts(), devices * centroids)
    return Compressed(codes, residuals), lists


def _padded_lists(listed: Int[np.ndarray, " i"], sizes: Int[np.ndarray, " l"], devices: int) -> tuple[Any, Any]:
    """The lists of each device `[r e]`, and where each starts `[r c]`, with an empty one behind the last."""
    ends = np.cumsum(sizes.reshape(devices, -1), axis=1)
    bounds = np.concatenate([[0], np.cumsum(ends[:, -1])])
    list_starts = np.pad(ends, ((0, 0), (1, 1)))
    list_starts[:, -1] = ends[:, -1]
    parts = _aligned((devices, max(1, int(ends[:, -1].max()))), np.int32)
    for part, begin, end in zip(parts, bounds, bounds[1:], strict=False):
        part[: end - begin] = listed[begin:end]
    return parts, list_starts.astype(np.int32)


def _aligned(shape: tuple[int, ...], dtype: Any) -> Any:
    """Zeros at an address that a CPU device takes as its own array, without a copy."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    begin = -raw.ctypes.data % ALIGNMENT
    return raw[begin : begin + size].view(dtype).reshape(shape)
