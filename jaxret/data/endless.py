"""Endless batches of a seqio mixture: fixed by the seed, the same for any number of processes, resumable anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from jaxret.data.order import Order
from jaxret.data.row_source import SPLIT
from jaxret.data.tensorflow_cpu import seqio, tf
from jaxret.errors import InputError

PREFETCH = 2
NUM_THREADS = 2


def check_place(global_batch_size: int, seed: int, start: int, process_index: int, process_count: int) -> None:
    """InputError where the arguments of `endless_batches` do not fit together."""
    if global_batch_size < 1 or global_batch_size % process_count:
        problem = f"{global_batch_size} cannot be divided among {process_count} processes"
        raise InputError("global_batch_size", problem, f"Choose a multiple of {process_count}.")
    if not 0 <= process_index < process_count:
        raise InputError("process_index", f"{process_index} is not one of {process_count}", "Count from 0.")
    for name, value in (("seed", seed), ("start", start)):
        if value < 0:
            raise InputError(name, f"{value} is negative", "Give 0 or more.")


def endless_batches(
    mixed: seqio.Mixture, *, global_batch_size: int, seed: int, start: int, process_index: int, process_count: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batch after batch of this process's rows, {feature: [b ...]} with b = `global_batch_size` / `process_count`.

    Args:
      mixed: tasks over `RowSource`s; with several, each example's task is drawn by the rates.
      global_batch_size: rows in a batch of all processes together; process p has the p-th block of them, as
        `jax.make_array_from_process_local_data` expects.
      seed: of the order and of every draw; not negative.
      start: the number of batches already used; the first batch is exactly what an uninterrupted run would get next.
      process_index, process_count: which process this is, of how many.

    Raises:
      InputError: see `check_place`.
    """
    check_place(global_batch_size, seed, start, process_index, process_count)
    share = global_batch_size // process_count
    order = Order(
        sizes=tuple(task.num_input_examples(SPLIT) for task in mixed.tasks),
        rates=tuple(mixed.get_rate(task) for task in mixed.tasks),
        seed=seed,
        global_batch=global_batch_size,
        first=process_index * share,
        last=(process_index + 1) * share,
    )
    features = list(mixed.output_features)
    dataset = _examples(mixed, order, start).batch(share, drop_remainder=True)
    dataset = dataset.map(lambda batch: {name: batch[name] for name in features}).prefetch(PREFETCH)
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
