"""Endless batches of seqio mixtures: fixed by the seed, the same for any number of processes, resumable anywhere."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from jaxret.data.kinds import Kind
from jaxret.data.order import Order, kinds_of_batches
from jaxret.data.row_source import SPLIT
from jaxret.data.tensorflow_cpu import seqio, tf
from jaxret.errors import InputError

PREFETCH = 2
NUM_THREADS = 2


def check_place(
    global_batch_size: int,
    seed: int,
    start: int,
    process_index: int,
    process_count: int,
    devices: int = 1,
    setting: str = "global_batch_size",
) -> None:
    """InputError where the arguments of `endless_batches` do not fit together.

    Args:
      global_batch_size, seed, start, process_index, process_count: see there.
      devices: that such a batch is divided over.
      setting: where its size comes from.
    """
    for count, parts in ((devices, "devices"), (process_count, "processes")):
        if global_batch_size < 1 or global_batch_size % count:
            problem = f"{global_batch_size} cannot be divided among {count} {parts}"
            raise InputError(setting, problem, f"Choose a multiple of {count}.")
    if not 0 <= process_index < process_count:
        raise InputError("process_index", f"{process_index} is not one of {process_count}", "Count from 0.")
    for name, value in (("seed", seed), ("start", start)):
        if value < 0:
            raise InputError(name, f"{value} is negative", "Give 0 or more.")


def endless_batches(
    kinds: Sequence[Kind], *, seed: int, start: int, process_index: int, process_count: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batch after batch of this process's rows, {feature: [b ...]} with b = `global_batch_size` / `process_count`.

    Args:
      kinds: tasks over `RowSource`s; with several kinds each batch's, and with several tasks each example's, is drawn
        by the rates. Process p has the p-th block of each global batch, as `jax.make_array_from_process_local_data`
        expects.
      seed: of the order and of every draw; not negative.
      start: the number of batches already used; the first batch is exactly what an uninterrupted run would get next.
      process_index, process_count: which process this is, of how many.

    Raises:
      InputError: see `check_place`.
    """
    choice = kinds_of_batches(tuple(kind.rate for kind in kinds), seed)
    batches = []
    for number, (kind, before) in enumerate(zip(kinds, choice.counts(start), strict=True)):
        check_place(kind.global_batch_size, seed, start, process_index, process_count)
        share = kind.global_batch_size // process_count
        order = Order(
            sizes=tuple(task.num_input_examples(SPLIT) for task in kind.mixed.tasks),
            rates=tuple(kind.mixed.get_rate(task) for task in kind.mixed.tasks),
            seed=seed,
            global_batch=kind.global_batch_size,
            first=process_index * share,
            last=(process_index + 1) * share,
            number=number,
        )
        batches.append(_examples(kind.mixed, order, int(before)).batch(share, drop_remainder=True))
    features = list(kinds[0].mixed.output_features)
    dataset = _taken(batches, partial(choice.onwards, start))
    dataset = dataset.map(lambda batch: {name: batch[name] for name in features}).prefetch(PREFETCH)
    return _held(dataset.with_options(_options()))


def _held(dataset: tf.data.Dataset) -> Iterator[dict[str, np.ndarray]]:
    """Its elements. What is still open when Python ends is closed first: TensorFlow's threads would hang or abort."""
    held = [dataset.as_numpy_iterator()]

    def elements() -> Iterator[dict[str, np.ndarray]]:
        try:
            while held:
                yield next(held[0])
        finally:
            held.clear()

    found = elements()
    weakref.finalize(found, held.clear)
    return found


def _examples(mixed: seqio.Mixture, order: Order, start: int) -> tf.data.Dataset:
    tables = []
    for table, task in enumerate(mixed.tasks):
        records = task.source.ordered(partial(order.rows, table, start), order.seed)
        tables.append(task.preprocess_postcache(records, sequence_length=None))
    return _taken(tables, partial(order.tables, start))


def _taken(datasets: list[tf.data.Dataset], places: Callable[[], Iterator[np.ndarray]]) -> tf.data.Dataset:
    """The next element of the dataset whose number comes next."""
    if len(datasets) == 1:
        return datasets[0]
    numbers = tf.data.Dataset.from_generator(places, output_signature=tf.TensorSpec([None], tf.int64))
    return tf.data.Dataset.choose_from_datasets(datasets, numbers.unbatch())


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = NUM_THREADS
    options.threading.max_intra_op_parallelism = 1
    return options
