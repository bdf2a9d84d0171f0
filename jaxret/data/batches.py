"""Batches for training: fixed by the seed, the same for any number of processes, resumable anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from jaxret.data.order import Order
from jaxret.data.tasks import SPLIT, Source, mixture
from jaxret.data.tensorflow_cpu import seqio, tf
from jaxret.data.text import TextConfig
from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.errors import InputError

PREFETCH = 2
NUM_THREADS = 2


def training_batches(
    sources: Sequence[Source],
    tokenizer: TextTokenizer,
    text: TextConfig,
    *,
    global_batch_size: int,
    train_group_size: int,
    seed: int,
    cache_dir: str | Path,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches {"query": [b s], "passage": [b n t], "passage_key": [b n]}, int32, of this process.

    Column 0 of n is a relevant passage, the others are its query's negatives; n is `train_group_size`, s and t are
    the lengths in `text`. b is `global_batch_size` / `process_count`: process p has the p-th block of rows of each
    global batch, as `jax.make_array_from_process_local_data` expects. Equal passages have equal keys.

    Args:
      sources: what to train on; with several, each example's source is drawn by the rates.
      tokenizer, text: how texts become ids.
      global_batch_size: queries in a batch of all processes together.
      train_group_size: passages with each query.
      seed: of the order, and of which positive and negatives go with a query; not negative.
      cache_dir: where the folders are prepared; several processes may share it.
      start: the number of batches already used; the first batch is exactly what an uninterrupted run would get next.
      process_index, process_count: which process this is, of how many.

    Raises:
      InputError: the sizes do not fit together, or a source is wrong (see `tasks.mixture`).
    """
    if global_batch_size < 1 or global_batch_size % process_count:
        problem = f"{global_batch_size} cannot be divided among {process_count} processes"
        raise InputError("global_batch_size", problem, f"Choose a multiple of {process_count}.")
    if not 0 <= process_index < process_count:
        raise InputError("process_index", f"{process_index} is not one of {process_count}", "Count from 0.")
    for name, value in (("seed", seed), ("start", start)):
        if value < 0:
            raise InputError(name, f"{value} is negative", "Give 0 or more.")
    mixed = mixture(sources, tokenizer, text, train_group_size, cache_dir)
    share = global_batch_size // process_count
    order = Order(
        sizes=tuple(task.num_input_examples(SPLIT) for task in mixed.tasks),
        rates=tuple(mixed.get_rate(task) for task in mixed.tasks),
        seed=seed,
        global_batch=global_batch_size,
        first=process_index * share,
        last=(process_index + 1) * share,
    )
    dataset = _examples(mixed, order, start).batch(share, drop_remainder=True).prefetch(PREFETCH)
    return dataset.with_options(_options()).as_numpy_iterator()


def _examples(mixed: seqio.Mixture, order: Order, start: int) -> tf.data.Dataset:
    tables = []
    for table, task in enumerate(mixed.tasks):
        records = task.source.ordered(partial(order.rows, table, start), order.seed)
        tables.append(task.preprocess_postcache(records, sequence_length=None))
    if len(tables) == 1:
        return tables[0]
    places = tf.data.Dataset.from_generator(
        partial(order.tables, start), output_signature=tf.TensorSpec([None], tf.int64)
    )
    return tf.data.Dataset.choose_from_datasets(tables, places.unbatch())


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = NUM_THREADS
    options.threading.max_intra_op_parallelism = 1
    return options
