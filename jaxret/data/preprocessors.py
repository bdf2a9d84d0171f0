"""From a query's record to a training example, one step a function, each example -> example on tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from jaxret.data.tensorflow_cpu import tf
from jaxret.data.text import TextConfig, padded, passage_ids, passage_text, query_ids
from jaxret.data.text_tokenizer import TextTokenizer

Example = dict[str, tf.Tensor]
CHUNK = 32


def chosen(example: Example, train_group_size: int) -> Example:
    """{query, positives, negatives, seed} to {query, rows [n]}: one positive, then n - 1 negatives.

    Both are drawn by the example's seed (two integers) alone. Negatives repeat only where there are fewer than n - 1.
    """
    seed, positives, count = example["seed"], example["positives"], train_group_size - 1
    place = tf.random.stateless_uniform([1], seed, 0, tf.size(positives), tf.int32, alg="philox")
    rows = tf.gather(positives, place)
    if count:
        negatives = tf.random.experimental.stateless_shuffle(
            example["negatives"], seed + tf.constant([1, 0], seed.dtype), alg="philox"
        )
        repeats = (count + tf.size(negatives) - 1) // tf.size(negatives)
        rows = tf.concat([rows, tf.tile(negatives, [repeats])[:count]], 0)
    return {"query": example["query"], "rows": tf.ensure_shape(rows, [train_group_size])}


def fetched(example: Example, documents: Mapping[str, tf.Tensor]) -> Example:
    """{query, rows [n]} to {query, title [n], text [n], passage_key [n]}: those rows of the documents."""
    return {
        "query": example["query"],
        "title": tf.gather(documents["title"], example["rows"]),
        "text": tf.gather(documents["text"], example["rows"]),
        "passage_key": tf.cast(tf.gather(documents["key"], example["rows"]), tf.int32),
    }


def encoded(examples: Example, tokenizer: TextTokenizer, config: TextConfig) -> Example:
    """{query [m], title [m n], text [m n], passage_key [m n]} to {query [m s], passage [m n t], passage_key [m n]}.

    The ids are made by `query_ids` and `passage_ids`, the functions that encode for search: tensorflow_text has another
    release of sentencepiece inside, which cuts 3 in 1000 JaQuAD passages at other places (equal scores, other choice).
    """

    def ids(queries: np.ndarray, titles: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = zip(titles.ravel(), texts.ravel(), strict=True)
        passages = [passage_text(title.decode(), text.decode(), config.title_separator) for title, text in pairs]
        query = padded(query_ids(tokenizer, config, [query.decode() for query in queries]), config.query_max_len)
        passage = padded(passage_ids(tokenizer, config, passages), config.passage_max_len)
        return query, passage.reshape(*titles.shape, config.passage_max_len)

    columns = [examples["query"], examples["title"], examples["text"]]
    query, passage = tf.numpy_function(ids, columns, (tf.int32, tf.int32), stateful=False)
    return {
        "query": tf.ensure_shape(query, [None, config.query_max_len]),
        "passage": tf.ensure_shape(passage, [None, examples["title"].shape[1], config.passage_max_len]),
        "passage_key": examples["passage_key"],
    }


def by_chunks(step: Callable[[Example], Example]) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Dataset to dataset: a step that works on many examples at once (a call into Python costs 40 us)."""
    return lambda dataset: dataset.batch(CHUNK).map(step).unbatch()
