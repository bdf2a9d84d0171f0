"""Few static shapes for many lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np


def fine_lengths(longest: int, steps: int = 4, smallest: int = 16) -> list[int]:
    """So many lengths an octave, in eights (16, 24, 32, 40, ..., 64, 80, ...), up to one that holds `longest`."""
    lengths = [smallest]
    while lengths[-1] < longest:
        octave = 1 << (lengths[-1].bit_length() - 1)
        lengths.append(lengths[-1] + max(8, octave // steps))
    return lengths


def longest_first(
    lengths: Sequence[int] | np.ndarray, rows: Callable[[int], int], steps: int = 4
) -> Iterator[tuple[int, np.ndarray]]:
    """Batches of rows in the order of their lengths, each with the fine length that holds its longest row.

    Every batch is full but the last one, of the shortest rows.

    Args:
      lengths: of all rows.
      rows: how many rows of a length make a full batch.
      steps: see `fine_lengths`.
    """
    lengths = np.asarray(lengths)
    order, start = np.argsort(-lengths, kind="stable"), 0
    buckets = fine_lengths(int(lengths.max(initial=0)), steps)
    while start < len(order):
        length = buckets[int(np.searchsorted(buckets, lengths[order[start]]))]
        chosen = order[start : start + rows(length)]
        yield length, chosen
        start += len(chosen)


def filled_rows(rows: int, full: int, devices: int) -> int:
    """Rows of a batch that holds so many: a full one's, or for few rows the power of two a device that holds them."""
    return min(full, devices * (1 << (-(-rows // devices) - 1).bit_length()))


def by_bucket(lengths: Sequence[int] | np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs of one of the `fine_lengths` and the rows that belong into it, ascending; empty buckets are left out."""
    lengths = np.asarray(lengths)
    if not len(lengths):
        return
    buckets = np.asarray(fine_lengths(int(lengths.max())))
    chosen = np.searchsorted(buckets, lengths)
    for number in np.unique(chosen):
        yield int(buckets[number]), np.flatnonzero(chosen == number)
