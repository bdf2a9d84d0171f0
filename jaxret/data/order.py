"""The endless order of training examples: shuffled, mixed, and known at any place without going there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

BLOCK = 1 << 16  # numbers that are drawn at a time
AT_ONCE = 64
REMEMBERED = 64  # blocks in memory


@dataclass(frozen=True)
class Draws:
    """Endless numbers 0, 1, ..., each drawn by the rates; they depend on rates, seed and key alone.

    Attributes:
      rates: relative share of each number.
      seed: of every draw.
      key: tells the sequences of one seed apart.
    """

    rates: tuple[float, ...]
    seed: int
    key: int

    def between(self, begin: int, end: int) -> Int64[np.ndarray, " n"]:
        """The numbers at the places [begin, end)."""
        blocks = range(begin // BLOCK, -(-end // BLOCK))
        drawn = np.concatenate([_block(self, block) for block in blocks])
        return drawn[begin - blocks[0] * BLOCK : end - blocks[0] * BLOCK]

    def onwards(self, start: int) -> Iterator[Int64[np.ndarray, " n"]]:
        """The numbers from the place `start` on, some at a time."""
        for begin in itertools.count(start, AT_ONCE):
            yield self.between(begin, begin + AT_ONCE)

    def counts(self, end: int) -> Int64[np.ndarray, " r"]:
        """How often each number stands at the places [0, end)."""
        return _counts(self, end)


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
      number: tells the orders of one seed apart.
    """

    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    seed: int
    global_batch: int
    first: int
    last: int
    number: int = 0

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
            return np.random.default_rng([self.seed, 3 * self.number + 1, table, epoch]).permutation(size)

        count = int(self._draws.counts(start * self.global_batch)[table])
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

    @property
    def _draws(self) -> Draws:
        return Draws(self.rates, self.seed, 3 * self.number)

    def _drawn(self, batch: int) -> np.ndarray:
        return self._draws.between(batch * self.global_batch, (batch + 1) * self.global_batch)


def kinds_of_batches(rates: tuple[float, ...], seed: int) -> Draws:
    """Of which kind each batch is where they are of several; the n-th kind's own batches are in the order number n."""
    return Draws(rates, seed, 2)


@lru_cache(maxsize=REMEMBERED)
def _block(draws: Draws, block: int) -> np.ndarray:
    if len(draws.rates) == 1:
        return np.zeros(BLOCK, np.int64)
    shares = np.cumsum(draws.rates) / np.sum(draws.rates)
    random = np.random.default_rng([draws.seed, draws.key, block]).random(BLOCK)
    return np.searchsorted(shares[:-1], random, side="right")


@lru_cache(maxsize=REMEMBERED)
def _counts(draws: Draws, end: int) -> np.ndarray:
    """Shared by an order's tables: each of them asks, and it goes through all blocks before `end`."""
    if len(draws.rates) == 1:
        return np.array([end])
    whole, rest = divmod(end, BLOCK)
    parts = itertools.chain((_block(draws, block) for block in range(whole)), [_block(draws, whole)[:rest]])
    return np.sum([np.bincount(part, minlength=len(draws.rates)) for part in parts], axis=0)
