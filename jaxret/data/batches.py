"""Batches of queries with their passages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxret.data.endless import check_place, endless_batches
from jaxret.data.tasks import GroupFile, Source, mixture
from jaxret.data.text import TextConfig
from jaxret.data.text_tokenizer import TextTokenizer


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
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
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
    `global_batch_size` / `process_count`: see `endless_batches`.

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
      start: the number of batches already used; the first batch is exactly what an uninterrupted run would get next.
      process_index, process_count: which process this is, of how many.

    Raises:
      InputError: the sizes do not fit together, or a source is wrong (see `tasks.mixture`).
    """
    place = {"global_batch_size": global_batch_size, "seed": seed, "start": start}
    place |= {"process_index": process_index, "process_count": process_count}
    check_place(**place)
    mixed = mixture(
        sources,
        tokenizer,
        text,
        train_group_size,
        cache_dir,
        missing_negatives=missing_negatives,
        teacher_scores=teacher_scores,
    )
    return endless_batches(mixed, **place)
