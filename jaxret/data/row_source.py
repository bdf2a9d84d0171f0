"""Rows of a table as a seqio source that can be read in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxret.data.tensorflow_cpu import seqio, tf

SPLIT = "train"  # what seqio calls the split of every task, whatever it reads


class RowSource(seqio.DataSource):
    """The rows of a table that is held in memory, {field: values}, in any order that is asked for."""

    def __init__(self, table: Mapping[str, tf.Tensor | tf.RaggedTensor]):
        self._table = dict(table)
        self._size = int(next(iter(self._table.values())).shape[0])
        super().__init__(splits=(SPLIT,), num_input_examples={SPLIT: self._size}, caching_permitted=False)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """A shard is every n-th row."""
        return True

    def list_shards(self, split: str) -> Sequence[str]:
        """One shard."""
        return [split]

    def get_dataset(self, split=SPLIT, shuffle=True, seed=None, shard_info=None, **unused: Any) -> tf.data.Dataset:
        """One epoch as seqio asks for it; resumable training reads `ordered`."""
        seed, rows = 0 if seed is None else int(seed), np.arange(self._size)
        if shuffle:
            rows = np.random.default_rng(seed).permutation(rows)
        if shard_info:
            rows = rows[shard_info.index :: shard_info.num_shards]
        return self.ordered(lambda: iter([(rows, rows)]), seed)

    def ordered(self, order: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]], seed: int) -> tf.data.Dataset:
        """{field: value, "seed": [2]} of row after row.

        Args:
          order: gives the iterator of (rows [m], draw numbers [m]); a draw number seeds the choices for its example.
          seed: goes with each draw number.
        """

        def example(row: tf.Tensor, draw: tf.Tensor) -> dict[str, tf.Tensor]:
            return {name: values[row] for name, values in self._table.items()} | {"seed": tf.stack([seed, draw])}

        numbers = tf.TensorSpec([None], tf.int64)
        rows = tf.data.Dataset.from_generator(order, output_signature=(numbers, numbers))
        return rows.unbatch().map(example)
