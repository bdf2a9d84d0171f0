"""Batches of running text: sentences with their context, and packed texts for masked language modelling."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.data.endless import check_place, endless_batches
from jaxret.data.kinds import Part, check_mixing, kinds, sized_rate
from jaxret.data.lengths import passage_lengths
from jaxret.data.masking import MaskedLM, RetroMAE
from jaxret.data.preprocessors import Example, by_chunks
from jaxret.data.row_source import SPLIT, RowSource
from jaxret.data.running_text import TextSource
from jaxret.data.tables import Content, prepared, table
from jaxret.data.tensorflow_cpu import seqio, tf
from jaxret.data.text import TextConfig, passage_ids
from jaxret.data.text_preprocessors import context_pair, masked, numbered, numbered_together
from jaxret.data.text_tables import DOCUMENTS, ROWS, TEXTS, document_tables, filled_rows, packed_tables
from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.errors import InputError

Steps = Sequence[Callable[[tf.data.Dataset], tf.data.Dataset]]
logger = logging.getLogger(__name__)


def context_batches(
    sources: Sequence[TextSource],
    tokenizer: TextTokenizer,
    text: TextConfig,
    *,
    global_batch_size: int,
    window: int,
    seed: int,
    cache_dir: str | Path,
    size_exponent: float | None = None,
    pure: str = "none",
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    devices: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of sentence pairs for contrastive context prediction, int32, of this process.

    `center` [b s] and `context` [b s] are sentences of one document, as passages of `passage_max_len` ids; `language`
    [b] is the source's; `document` [b] is equal where the documents are. A document gives one pair an epoch: a batch
    over the border of two epochs can have two of its pairs, which `document` tells.

    Args:
      sources: documents of one sentence are left out; the log says how many.
      tokenizer, text, global_batch_size, seed, cache_dir, size_exponent, pure: see `training_batches`.
      start, process_index, process_count, devices: see there.
      window: the context is drawn uniformly from the sentences at most this far from the centre, itself left out.

    Raises:
      InputError: the sizes do not fit together, or a source is wrong.
    """
    place = _place(global_batch_size, seed, start, process_index, process_count, devices)
    check_mixing(pure, size_exponent)
    if window < 1:
        raise InputError("window", f"{window} leaves no context", "Give 1 or more.")

    def rows(source: TextSource) -> RowSource:
        read = partial(document_tables, source)
        tables = prepared(cache_dir, f"documents-{_short(source.fingerprint)}", DOCUMENTS, read)
        if alone := tables.facts["alone"]:
            logger.warning("%s: %d documents of one sentence are left out", source.path, alone)
        return RowSource(table(tables, "documents"))

    steps = [
        seqio.map_over_dataset(partial(context_pair, window=window)),
        by_chunks(partial(numbered, names=("center", "context"), tokenizer=tokenizer, config=text)),
    ]
    ranks = {"center": 1, "context": 1, "document": 0, "language": 0}
    found = _parts(sources, rows, steps, ranks, tokenizer, f"{text} {window}", size_exponent)
    return endless_batches(kinds(found, pure, [global_batch_size]), **place)


def text_batches(
    sources: Sequence[TextSource],
    tokenizer: TextTokenizer,
    text: TextConfig,
    *,
    global_batch_size: int,
    seed: int,
    cache_dir: str | Path,
    masking: MaskedLM | None = None,
    packed: bool = False,
    size_exponent: float | None = None,
    pure: str = "none",
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    devices: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of texts, int32, of this process: `tokens` [b l], `language` [b], and what masking adds.

    A text is as many of a document's sentences as fit into `passage_max_len` together; l is that length. A sentence
    that is longer alone is halved until it fits. `packed` rows hold as many texts of a source as fit, one after
    another, and `segments` [b l] has the number of each token's text, 0, 1, ..., and -1 at padding.

    Args:
      sources: documents of one sentence stay.
      tokenizer, text, global_batch_size, seed, cache_dir, size_exponent, pure: see `training_batches`.
      start, process_index, process_count, devices: see there.
      masking: `MaskedLM` or `RetroMAE` of `jaxret.data.masking`; None for the ids alone.
      packed: rows of several texts; not for RetroMAE, which rebuilds a row from one vector.

    Raises:
      InputError: the sizes do not fit together, a source is wrong, or the tokeniser has no [MASK].
    """
    place = _place(global_batch_size, seed, start, process_index, process_count, devices)
    check_mixing(pure, size_exponent)
    if packed and isinstance(masking, RetroMAE):
        problem = "RetroMAE rebuilds a row from one vector, but a packed row has several texts"
        raise InputError("packed", problem, "Set it to False, or choose MaskedLM.")
    room = text.passage_max_len - len(passage_ids(tokenizer, text, [""])[0])
    if room < 1:
        raise InputError("passage_max_len", f"{text.passage_max_len} leaves no room beside the prefix", "Give more.")

    def rows(source: TextSource) -> RowSource:
        name = f"texts-{_short(f'{source.fingerprint} {tokenizer.fingerprint} {room}')}"
        read = partial(packed_tables, source, tokenizer.encode, room)
        texts = table(prepared(cache_dir, name, TEXTS, read), "texts")["text"]
        if not packed:
            return RowSource({"tokens": texts})
        name = f"rows-{_short(f'{source.fingerprint} {tokenizer.fingerprint} {text}')}"
        return RowSource(table(prepared(cache_dir, name, ROWS, partial(_filled, texts, tokenizer, text)), "rows"))

    encode: Steps = [by_chunks(partial(numbered, names=("tokens",), tokenizer=tokenizer, config=text))]
    if packed:
        encode = [seqio.map_over_dataset(partial(numbered_together, tokenizer=tokenizer, config=text))]
    steps, ranks = [*encode], {"tokens": 1, "language": 0} | ({"segments": 1} if packed else {})
    if masking:
        steps.append(by_chunks(partial(masked, masking=masking, words=masking.words(tokenizer))))
        ranks |= {name: rank - 1 for name, rank in masking.ranks.items()}
    found = _parts(sources, rows, steps, ranks, tokenizer, f"{text} {masking} {packed}", size_exponent)
    return endless_batches(kinds(found, pure, [global_batch_size]), **place)


def _place(
    global_batch_size: int, seed: int, start: int, process_index: int, process_count: int, devices: int
) -> dict[str, int]:
    check_place(global_batch_size, seed, start, process_index, process_count, devices)
    return {"seed": seed, "start": start, "process_index": process_index, "process_count": process_count}


def _parts(
    sources: Sequence[TextSource],
    rows: Callable[[TextSource], RowSource],
    steps: Steps,
    ranks: Mapping[str, int],
    tokenizer: TextTokenizer,
    settings: str,
    size_exponent: float | None,
) -> list[Part]:
    if not sources:
        raise InputError("sources", "nothing to train on", "Give at least one file or BEIR folder.")
    if len({source.fingerprint for source in sources}) < len(sources):
        problem = f"the same text twice among {', '.join(map(str, sources))}"
        raise InputError("sources", problem, "Name each once, with a higher rate.")
    vocabulary = seqio.PassThroughVocabulary(tokenizer.size)
    features = {name: seqio.Feature(vocabulary, add_eos=False, rank=rank) for name, rank in ranks.items()}
    made = []
    for number, source in enumerate(sources):
        content = f"{source.fingerprint} {source.language} {tokenizer.fingerprint} {settings}"
        label = re.sub(r"\W", "_", f"{source.name}_{_short(content)}", flags=re.ASCII)
        first = seqio.map_over_dataset(partial(_labelled, language=source.language))
        task = seqio.Task(label, source=rows(source), preprocessors=[first, *steps], output_features=features)
        rate = sized_rate(source.rate, task.num_input_examples(SPLIT), size_exponent)
        made.append(Part(task, number, source.language, rate))
    return made


def _filled(texts: tf.Tensor, tokenizer: TextTokenizer, text: TextConfig) -> Content:
    words = [each.decode() for each in texts.numpy()]
    return filled_rows(words, passage_lengths(words, tokenizer, text), text.passage_max_len)


def _labelled(example: Example, language: int) -> dict[str, Any]:
    return example | {"language": tf.constant(language, tf.int32)}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
