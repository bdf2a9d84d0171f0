"""The endless order of training examples: shuffled, mixed, and known at any place without going there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

BLOCK = 1 << 16  # positions whose tables are drawn at a time


@dataclass(frozen=True)
class Order:
    """Which row of which table stands at each place of each global batch, for one process.

    Each position of the stream draws a table with probability in proportion to its rate, and then the table's next
    row; a table is gone through epoch by epoch, in a new order each time. All of it depends on the seed, the sizes
    and the rates alone, so that any number of processes cuts the same global batches into blocks.

    Attributes:
      sizes: rows of each table.
      rates: relative share of each table in the stream.
      seed: of every draw.
      global_batch: examples in a batch of all processes together.
      first, last: the places [first, last) of each global batch that belong to this process.
    """

    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    seed: int
    global_batch: int
    first: int
    last: int

    def tables(self, start: int) -> Iterator[Int64[np.ndarray, " b"]]:
        """The table of each place of this process, batch after batch from batch `start` on."""
        for batch in itertools.count(start):
            yield self._drawn(batch)[self.first : self.last]

    def rows(self, table: int, start: int) -> Iterator[tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]]:
        """The rows that `table` gives to this process, batch after batch from batch `start` on.

        Also their draw numbers: 0, 1, 2, ... through all epochs, never the same twice.
        """
        size = self.sizes[table]

        @lru_cache(maxsize=2)
        def shuffled(epoch: int) -> np.ndarray:
            return np.random.default_rng([self.seed, 1, table, epoch]).permutation(size)

        count = self._count(table, start * self.global_batch)
        for batch in itertools.count(start):
            hits = self._drawn(batch) == table
            draws = (count + np.cumsum(hits) - 1)[self.first : self.last][hits[self.first : self.last]]
            count += int(hits.sum())
            epochs, places = np.divmod(draws, size)
            rows = np.empty_like(draws)
            for epoch in np.unique(epochs):
                here = epochs == epoch
                rows[here] = shuffled(int(epoch))[places[here]]
            yield rows, draws

    def _drawn(self, batch: int) -> np.ndarray:
        begin, end = batch * self.global_batch, (batch + 1) * self.global_batch
        blocks = range(begin // BLOCK, -(-end // BLOCK))
        drawn = np.concatenate([_block(self.seed, self.rates, block) for block in blocks])
        return drawn[begin - blocks[0] * BLOCK : end - blocks[0] * BLOCK]

    def _count(self, table: int, end: int) -> int:
        if len(self.rates) == 1:
            return end
        whole, rest = divmod(end, BLOCK)
        counts = (np.count_nonzero(_block(self.seed, self.rates, block) == table) for block in range(whole))
        return int(sum(counts) + np.count_nonzero(_block(self.seed, self.rates, whole)[:rest] == table))


@lru_cache(maxsize=4)
def _block(seed: int, rates: tuple[float, ...], block: int) -> np.ndarray:
    if len(rates) == 1:
        return np.zeros(BLOCK, np.int64)
    shares = np.cumsum(rates) / np.sum(rates)
    return np.searchsorted(shares[:-1], np.random.default_rng([seed, 0, block]).random(BLOCK), side="right")
