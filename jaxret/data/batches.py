"""Batches of queries with their passages."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxret.data.endless import check_place, endless_batches
from jaxret.data.kinds import Bucket, check_mixing, kinds, whole_buckets
from jaxret.data.tasks import GroupFile, Source, parts
from jaxret.data.text import TextConfig
from jaxret.data.text_tokenizer import TextTokenizer

__all__ = ["Bucket", "GroupFile", "Source", "training_batches"]

logger = logging.getLogger(__name__)


def training_batches(
    sources: Sequence[Source | GroupFile],
    tokenizer: TextTokenizer,
    text: TextConfig,
    *,
    global_batch_size: int,
    train_group_size: int,
    seed: int,
    cache_dir: str | Path,
    missing_negatives: str = "error",
    teacher_scores: bool = False,
    size_exponent: float | None = None,
    pure: str = "none",
    length_buckets: Sequence[Bucket] = (),
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    devices: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of this process, int32: fixed by the seed, the same for any number of processes.

    | name | shape | |
    |---|---|---|
    | `query` | [b s] | |
    | `passage` | [b n t] | column 0 of n is a relevant passage, the others are the query's negatives |
    | `passage_key` | [b n] | equal passages have equal keys, in all sources |
    | `positive_keys` | [b p] | of all passages that are known to be relevant to the query, filled up with -1 |
    | `language` | [b] | the source's |
    | `teacher_scores` | [b n] | float32, if asked for |

    n is `train_group_size`, s and t are the lengths in `text`, p is the most relevant passages of any query, and b is
    `global_batch_size` / `process_count`: see `endless_batches`. With `length_buckets`, b and t are the bucket's. Every
    query comes once an epoch of its source, or of its bucket of it, with one of its positives, drawn anew; the next
    epoch begins in the middle of a batch where it ends there.

    Args:
      sources: what to train on; with several, each example's source is drawn by the rates.
      tokenizer, text: how texts become ids.
      global_batch_size: queries in a batch of all processes together.
      train_group_size: passages with each query.
      seed: of the order, and of which positive and negatives go with a query; not negative.
      cache_dir: where the sources are prepared; several processes may share it.
      missing_negatives: for a query without any: "error", "skip" (it is left out; the log says how many are), or
        "perturb" (its positive with a span deleted or two swapped, see `perturbation`).
      teacher_scores: give the scores that a file of groups has for its passages.
      size_exponent: multiplies the rate of each source by so high a power of the number of its queries: 1 draws every
        query as often, 0.5 small sources more often, None and 0 leave the rates alone (XLM, Lample and Conneau 2019).
      pure: "source" or "language" fill each batch of all processes from one source, or from sources of one language,
        each of them as often as its rate says; "none" mixes all.
      length_buckets: batches of passages of about one length, in ascending order; none pads all to `passage_max_len`.
        What is longer than the last one is cut. A bucket comes as often as gives each row of a source the same number
        of turns. The step is compiled once for each bucket.
      start: the number of batches already used; the first batch is exactly what an uninterrupted run would get next.
      process_index, process_count: which process this is, of how many.
      devices: that a batch of all processes is divided over; every batch size must be a multiple.

    Raises:
      InputError: the sizes do not fit together, or a source is wrong (see `tasks.parts`).
    """
    place = {"seed": seed, "start": start, "process_index": process_index, "process_count": process_count}
    check_place(global_batch_size, **place, devices=devices, setting="global_batch_size")
    check_mixing(pure, size_exponent)
    buckets = whole_buckets(length_buckets, text.passage_max_len, global_batch_size)
    for bucket in buckets:
        setting = f"Bucket.global_batch_size, of max_len {bucket.max_len}"
        check_place(bucket.global_batch_size, **place, devices=devices, setting=setting)
    found = parts(
        sources,
        tokenizer,
        text,
        train_group_size,
        cache_dir,
        missing_negatives=missing_negatives,
        teacher_scores=teacher_scores,
        size_exponent=size_exponent,
        length_buckets=buckets,
    )
    _log_shapes([buckets[number] for number in sorted({part.bucket for part in found})], text, train_group_size)
    return endless_batches(kinds(found, pure, [bucket.global_batch_size for bucket in buckets]), **place)


def _log_shapes(buckets: Sequence[Bucket], text: TextConfig, train_group_size: int) -> None:
    sizes = ((bucket.global_batch_size, bucket.max_len) for bucket in buckets)
    shapes = [f"[{b} {text.query_max_len}] x [{b} {train_group_size} {t}]" for b, t in sizes]
    logger.info("%d shapes of batches: %s", len(shapes), ", ".join(shapes))
