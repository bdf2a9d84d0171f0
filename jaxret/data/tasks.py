"""seqio tasks: one for each source of training queries, and their mixture."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.data import preprocessors
from jaxret.data.group_tables import COLUMNS
from jaxret.data.kinds import Bucket, Part, mixture_of, sized_rate
from jaxret.data.lengths import Rows, divided, document_lengths, longest_passages
from jaxret.data.row_source import SPLIT, RowSource
from jaxret.data.sources import GroupFile, Source
from jaxret.data.tables import Tables, prepared, table
from jaxret.data.tensorflow_cpu import seqio, tf
from jaxret.data.text import TextConfig, passage_ids
from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.errors import InputError

__all__ = ["SPLIT", "GroupFile", "Source", "mixture", "parts", "task"]

MISSING_NEGATIVES = ("error", "skip", "perturb")
logger = logging.getLogger(__name__)


def mixture(
    sources: Sequence[Source | GroupFile],
    tokenizer: TextTokenizer,
    text: TextConfig,
    train_group_size: int,
    cache_dir: str | Path,
    **settings: Any,
) -> seqio.Mixture:
    """The tasks of the sources, each with its rate; arguments and errors as `parts`."""
    return mixture_of(parts(sources, tokenizer, text, train_group_size, cache_dir, **settings))


def parts(
    sources: Sequence[Source | GroupFile],
    tokenizer: TextTokenizer,
    text: TextConfig,
    train_group_size: int,
    cache_dir: str | Path,
    *,
    missing_negatives: str = "error",
    teacher_scores: bool = False,
    size_exponent: float | None = None,
    length_buckets: Sequence[Bucket] = (),
) -> list[Part]:
    """A task for each source, or for each bucket of it, with its rate.

    p of `positive_keys` is the most relevant passages of any query.

    Raises:
      InputError: as `task`; no source or one twice; something wrong in a folder or file; settings that do not fit.
    """
    _check_settings(sources, train_group_size, missing_negatives, teacher_scores)
    edges = [bucket.max_len for bucket in length_buckets] or [text.passage_max_len]
    texts = [replace(text, passage_max_len=edge) for edge in edges]
    passage_ids(tokenizer, texts[0], [])  # raises where the shortest leaves no room
    prepare = partial(prepared, cache_dir, columns=COLUMNS)
    found = [prepare(f"queries-{_short(source.fingerprint)}", read=source.content) for source in sources]
    make = partial(
        task,
        tokenizer=tokenizer,
        train_group_size=train_group_size,
        num_positive_keys=max(each.facts["most_relevant"] for each in found),
        missing_negatives=missing_negatives,
        teacher_scores=teacher_scores,
    )
    made = []
    for number, (source, tables) in enumerate(zip(sources, found, strict=True)):
        queries = _queries(source, tables, train_group_size, missing_negatives, teacher_scores)
        documents, shelves = table(tables, "documents"), [queries]
        if len(edges) > 1:
            lengths = document_lengths(source.fingerprint, documents, tokenizer, text, cache_dir)
            shelves = divided(queries, longest_passages(queries, lengths, train_group_size > 1), edges)
        total = len(queries["query"])
        rate = sized_rate(source.rate, total, size_exponent)
        for bucket, (rows, config) in enumerate(zip(shelves, texts, strict=True)):
            if share := len(rows["query"]) / total:
                examples = make(source, rows, documents, text=config, shorter=edges[:bucket])
                made.append(Part(examples, number, source.language, rate * share, bucket))
    return made


def task(
    source: Source | GroupFile,
    queries: Rows,
    documents: Rows,
    *,
    tokenizer: TextTokenizer,
    text: TextConfig,
    train_group_size: int,
    num_positive_keys: int,
    missing_negatives: str = "error",
    teacher_scores: bool = False,
    shorter: Sequence[int] = (),
) -> seqio.Task:
    """One source's {query [s], passage [n t], passage_key [n], positive_keys [p], language []}, int32.

    And `teacher_scores` [n], float32, if asked for. The task is not entered into seqio's global registry; its name
    tells its content: `shorter` are the lengths of the buckets before its own.
    """
    language = {"language": tf.constant(source.language, tf.int32)}

    def example(record: preprocessors.Example) -> preprocessors.Example:
        choice = preprocessors.chosen(record, train_group_size)
        return preprocessors.fetched(choice, documents, num_positive_keys) | language

    changes = [preprocessors.changed] if missing_negatives == "perturb" else []
    by_chunks = [partial(each, tokenizer=tokenizer, config=text) for each in (*changes, preprocessors.encoded)]
    settings = (train_group_size, num_positive_keys, missing_negatives, teacher_scores, source.language, *shorter)
    content = f"{source.fingerprint} {tokenizer.fingerprint} {text} {settings}"
    label = re.sub(r"\W", "_", source.name, flags=re.ASCII)
    return seqio.Task(
        f"{label}_{_short(content)}",
        source=RowSource(queries),
        preprocessors=[seqio.map_over_dataset(example), *map(preprocessors.by_chunks, by_chunks)],
        output_features=_features(tokenizer, teacher_scores),
    )


def _queries(
    source: Source | GroupFile, tables: Tables, train_group_size: int, missing_negatives: str, teacher_scores: bool
) -> Rows:
    """The queries to train on; InputError where one has no negatives, or a passage no score, that are asked for."""
    if teacher_scores and (first := tables.facts["without_scores"]):
        raise source.unscored(first[0])
    found = table(tables, "queries")
    names = (*preprocessors.SIDES, "relevant", *(preprocessors.SCORES if teacher_scores else ()))
    queries = {"query": found["text"]} | {name: found[name] for name in names}
    if train_group_size == 1 or missing_negatives == "perturb" or not tables.facts["without_negatives"]:
        return queries
    place, query = tables.facts["without_negatives"]
    if missing_negatives == "error":
        fix = 'Add some, set missing_negatives to "skip" or "perturb", or train_group_size to 1.'
        raise InputError(place, f"query {query!r} has no negatives", fix)
    kept = np.flatnonzero(queries["negatives"].row_lengths())
    if not len(kept):
        raise InputError(place, "no query has negatives", "Add some, or set train_group_size to 1.")
    total = len(queries["query"])
    logger.warning("%s: %d of %d queries have no negatives and are left out", place, total - len(kept), total)
    return {name: tf.gather(values, kept) for name, values in queries.items()}


def _features(tokenizer: TextTokenizer, teacher_scores: bool) -> dict[str, seqio.Feature]:
    vocabulary = seqio.PassThroughVocabulary(tokenizer.size)
    ranks = {"query": 1, "passage": 2, "passage_key": 1, "positive_keys": 1, "language": 0}
    features = {name: seqio.Feature(vocabulary, add_eos=False, rank=rank) for name, rank in ranks.items()}
    if teacher_scores:
        features["teacher_scores"] = seqio.Feature(vocabulary, add_eos=False, dtype=tf.float32)
    return features


def _check_settings(
    sources: Sequence[Source | GroupFile], train_group_size: int, missing_negatives: str, teacher_scores: bool
) -> None:
    if not sources:
        raise InputError("sources", "nothing to train on", "Give at least one BEIR folder or file of groups.")
    if train_group_size < 1:
        problem = f"{train_group_size} leaves no room for the positive"
        raise InputError("train_group_size", problem, "Give 1, or 1 + the number of negatives.")
    if missing_negatives not in MISSING_NEGATIVES:
        choices = ", ".join(MISSING_NEGATIVES)
        raise InputError("missing_negatives", f"unknown choice {missing_negatives!r}", f"Choose from {choices}.")
    if missing_negatives == "perturb" and teacher_scores:
        raise InputError("missing_negatives", "perturbed passages have no teacher's scores", 'Choose "skip".')
    if len({source.fingerprint for source in sources}) < len(sources):
        problem = f"the same queries twice among {', '.join(map(str, sources))}"
        raise InputError("sources", problem, "Name each once, with a higher rate.")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
