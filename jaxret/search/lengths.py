"""Few static shapes for many lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def bucket_lengths(longest: int, smallest: int = 16) -> list[int]:
    """Two lengths an octave (16, 24, 32, 48, 64, 96, ...) up to the first that holds `longest`; the last in eights."""
    lengths = [smallest]
    while lengths[-1] < longest:
        base = smallest * 2 ** (len(lengths) // 2)
        lengths.append(base if len(lengths) % 2 == 0 else base * 3 // 2)
    lengths[-1] = min(lengths[-1], max(-(-longest // 8) * 8, smallest))
    return lengths


def by_bucket(lengths: Sequence[int] | np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs of a bucket's length and the rows that belong into it, ascending; empty buckets are left out."""
    lengths = np.asarray(lengths)
    if not len(lengths):
        return
    buckets = np.asarray(bucket_lengths(int(lengths.max())))
    chosen = np.searchsorted(buckets, lengths)
    for number in np.unique(chosen):
        yield int(buckets[number]), np.flatnonzero(chosen == number)
