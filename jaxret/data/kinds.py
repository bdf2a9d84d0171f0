"""Kinds of batches: which rows stand together, how many of them, and how often such a batch comes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxret.data.row_source import SPLIT
from jaxret.data.tensorflow_cpu import seqio
from jaxret.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bucket:
    """Queries whose passages are of about one length go into batches of their own (BGE-M3, Chen et al. 2024, app. B).

    Attributes:
      max_len: ids of a passage, markers included; the longest passage of a query decides.
      global_batch_size: queries in a batch of all processes together, a multiple of the devices; 0 for the run's own
        number.
    """

    max_len: int
    global_batch_size: int = 0

    def __post_init__(self):
        if self.global_batch_size < 0:
            fix = "Give 1 or more, or 0 for the run's own."
            raise InputError("Bucket.global_batch_size", f"{self.global_batch_size} is negative", fix)


@dataclass(frozen=True)
class Part:
    """Rows that are in the same kind of batch: a source's, or those of them that are in one bucket.

    Attributes:
      task: makes examples of them.
      source: the source's number.
      language: the source's.
      rate: their share of all examples, relative to other parts.
      bucket: the bucket's number.
    """

    task: seqio.Task
    source: int
    language: int
    rate: float
    bucket: int = 0

    @property
    def size(self) -> int:
        """How many."""
        return self.task.num_input_examples(SPLIT)


@dataclass(frozen=True)
class Kind:
    """Batches of one shape.

    Attributes:
      mixed: where their rows come from.
      global_batch_size: rows in a batch of all processes together.
      rate: how often they come, relative to other kinds.
    """

    mixed: seqio.Mixture
    global_batch_size: int
    rate: float = 1.0


PURE: dict[str, Callable[[Part], int]] = {
    "none": lambda part: 0,
    "source": lambda part: part.source,
    "language": lambda part: part.language,
}


def check_mixing(pure: str, size_exponent: float | None) -> None:
    """InputError where one of them is no choice."""
    if pure not in PURE:
        raise InputError("pure", f"unknown choice {pure!r}", f"Choose from {', '.join(PURE)}.")
    if size_exponent is not None and not 0 <= size_exponent < math.inf:
        fix = "Give 0 or more: 1 takes sources by their sizes, less draws small ones more often."
        raise InputError("size_exponent", f"{size_exponent} is out of range", fix)


def whole_buckets(buckets: Sequence[Bucket], passage_max_len: int, global_batch_size: int) -> list[Bucket]:
    """Buckets with batch sizes, one for all passages where none is given.

    Raises:
      InputError: they are not in ascending order, or exceed `passage_max_len`.
    """
    lengths = [bucket.max_len for bucket in buckets]
    if lengths != sorted(set(lengths)):
        raise InputError("length_buckets", f"max_len {lengths} do not ascend", "Give each length once, in order.")
    if lengths and lengths[-1] > passage_max_len:
        problem = f"{lengths[-1]} ids, but a passage has at most {passage_max_len}"
        raise InputError("length_buckets", problem, "Raise passage_max_len.")
    sizes = [(bucket.max_len, bucket.global_batch_size or global_batch_size) for bucket in buckets]
    return [Bucket(*size) for size in sizes or [(passage_max_len, global_batch_size)]]


def sized_rate(rate: float, size: int, size_exponent: float | None) -> float:
    """The share of a source with so many rows; the `rate` itself for None."""
    return rate if size_exponent is None else rate * size**size_exponent


def kinds(parts: Sequence[Part], pure: str, batch_sizes: Sequence[int]) -> list[Kind]:
    """A kind for each group of sources and each bucket that has rows.

    A kind comes as often as gives each part its share of the examples: a row of a source is used as often as another,
    whatever their buckets.

    Args:
      parts: what there is.
      pure: what the sources of a batch share: "none", "source" or "language".
      batch_sizes: of each bucket.
    """
    groups: dict[tuple[int, int], list[Part]] = {}
    for part in parts:
        groups.setdefault((part.bucket, PURE[pure](part)), []).append(part)
    found = []
    for (bucket, _), members in sorted(groups.items()):
        mixed, batch = mixture_of(members), batch_sizes[bucket]
        found.append(Kind(mixed, batch, sum(part.rate for part in members) / batch))
        if (rows := sum(part.size for part in members)) < batch:
            logger.warning("%s: only %d rows for batches of %d, which repeat some", mixed.name, rows, batch)
    return found


def mixture_of(parts: Sequence[Part]) -> seqio.Mixture:
    """The parts' tasks, each with its rate."""
    rates = [(part.task, part.rate) for part in parts]
    return seqio.Mixture("_and_".join(task.name for task, _ in rates), rates)
