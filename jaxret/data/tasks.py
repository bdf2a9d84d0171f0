"""seqio tasks: one for a split of a BEIR folder, and a mixture of several."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.data import preprocessors
from jaxret.data.beir import BeirFolder
from jaxret.data.tensorflow_cpu import seqio, tf
from jaxret.data.text import TextConfig
from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.data.tfds_beir import BeirTraining, prepared, table
from jaxret.errors import InputError

SPLIT = "train"  # what seqio calls the split of every task, whichever split of the folder it reads


@dataclass(frozen=True)
class Source:
    """Training queries: a split of a BEIR folder, and its share in a mixture relative to the other sources."""

    folder: str | Path
    split: str = "train"
    rate: float = 1.0

    def __post_init__(self):
        if not 0 < self.rate < float("inf"):
            raise InputError(f"source {self.folder}", f"rate {self.rate} is not positive", "Give a number above 0.")


class QuerySource(seqio.DataSource):
    """The `queries` of a prepared data set, in any order that is asked for; they are held in memory."""

    def __init__(self, builder: BeirTraining):
        self._queries = table(builder, "queries")
        self._size = builder.info.splits["queries"].num_examples
        super().__init__(splits=(SPLIT,), num_input_examples={SPLIT: self._size}, caching_permitted=False)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """A shard is every n-th query."""
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
        """{query, positives, negatives, seed [2]} of row after row.

        Args:
          order: gives the iterator of (rows [m], draw numbers [m]); a draw number seeds the choices for its example.
          seed: goes with each draw number.
        """

        def example(row: tf.Tensor, draw: tf.Tensor) -> dict[str, tf.Tensor]:
            query = {name: self._queries[name][row] for name in ("text", "positives", "negatives")}
            return {"query": query.pop("text"), **query, "seed": tf.stack([seed, draw])}

        numbers = tf.TensorSpec([None], tf.int64)
        rows = tf.data.Dataset.from_generator(order, output_signature=(numbers, numbers))
        return rows.unbatch().map(example)


def task(
    source: Source, tokenizer: TextTokenizer, text: TextConfig, train_group_size: int, cache_dir: Path
) -> seqio.Task:
    """The task of one source: {query [s], passage [n t], passage_key [n]}, int32.

    It is not entered into seqio's global registry; its name tells its content.

    Raises:
      InputError: the folder lacks the split, something in it is wrong, or `train_group_size` asks for negatives
        and some query has none.
    """
    folder = BeirFolder(source.folder)
    builder = prepared(folder, source.split, cache_dir)
    if train_group_size > 1:
        _check_negatives(builder, folder.path / "negatives.tsv", source.split)
    documents = table(builder, "documents")
    steps = [
        seqio.map_over_dataset(partial(preprocessors.chosen, train_group_size=train_group_size)),
        seqio.map_over_dataset(partial(preprocessors.fetched, documents=documents)),
        preprocessors.by_chunks(partial(preprocessors.encoded, tokenizer=tokenizer, config=text)),
    ]
    vocabulary = seqio.PassThroughVocabulary(tokenizer.size)
    ranks = {"query": 1, "passage": 2, "passage_key": 1}
    content = f"{folder.fingerprint} {source.split} {tokenizer.fingerprint} {text} {train_group_size}"
    label = re.sub(r"\W", "_", f"{folder.path.resolve().name}_{source.split}", flags=re.ASCII)
    return seqio.Task(
        f"{label}_{hashlib.sha256(content.encode()).hexdigest()[:12]}",
        source=QuerySource(builder),
        preprocessors=steps,
        output_features={name: seqio.Feature(vocabulary, add_eos=False, rank=rank) for name, rank in ranks.items()},
    )


def mixture(
    sources: Sequence[Source], tokenizer: TextTokenizer, text: TextConfig, train_group_size: int, cache_dir: str | Path
) -> seqio.Mixture:
    """The tasks of the sources, each with its rate; InputError as `task`, and for no source or the same one twice."""
    if not sources:
        raise InputError("sources", "nothing to train on", "Give at least one BEIR folder.")
    if train_group_size < 1:
        problem = f"{train_group_size} leaves no room for the positive"
        raise InputError("train_group_size", problem, "Give 1, or 1 + the number of negatives.")
    tasks = [task(source, tokenizer, text, train_group_size, Path(cache_dir)) for source in sources]
    rates = {each.name: (each, source.rate) for each, source in zip(tasks, sources, strict=True)}
    if len(rates) < len(tasks):
        problem = f"the same folder and split twice among {', '.join(map(str, sources))}"
        raise InputError("sources", problem, "Name each once, with a higher rate.")
    return seqio.Mixture("_and_".join(rates), list(rates.values()))


def _check_negatives(builder: BeirTraining, path: Path, split: str) -> None:
    for query in builder.info.metadata["without_negatives"]:
        fix = "Add some, or set train_group_size to 1."
        raise InputError(path, f"query {query!r} of {split!r} has no negatives", fix)
