"""From a query's record to a training example, one step a function, each example -> example on tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from jaxret.data.group_tables import passage_key
from jaxret.data.perturbation import perturbed
from jaxret.data.tensorflow_cpu import tf
from jaxret.data.text import TextConfig, padded, passage_ids, passage_spans, passage_text, query_ids
from jaxret.data.text_tokenizer import TextTokenizer

Example = dict[str, tf.Tensor]
CHUNK = 32
SIDES, SCORES = ("positives", "negatives"), ("positive_scores", "negative_scores")
NO_KEY = -1  # fills rows of passage keys up


def chosen(example: Example, train_group_size: int) -> Example:
    """{positives, negatives, seed} to {rows [n], pseudo [n], seed}: one positive, then n - 1 negatives.

    Both are drawn by the example's seed (two integers) alone. Negatives repeat only where there are fewer than n - 1.
    Where there are none the positive stands in their places, and `pseudo` is 1 there. {positive_scores,
    negative_scores}, if there are any, become the rows' {teacher_scores [n]}. What else is in the example stays.
    """
    (positives, negatives), seed = (example[name] for name in SIDES), example["seed"]
    places = tf.random.stateless_uniform([1], seed, 0, tf.size(positives), tf.int32, alg="philox")
    pseudo = tf.zeros([train_group_size], tf.int32)
    if count := train_group_size - 1:
        others = tf.random.experimental.stateless_shuffle(
            tf.size(positives) + tf.range(tf.size(negatives)), seed + tf.constant([1, 0], seed.dtype), alg="philox"
        )
        others = tf.tile(others, [-(-count // tf.maximum(tf.size(others), 1))])[:count]
        missing = count - tf.size(others)
        places = tf.ensure_shape(tf.concat([places, others, tf.repeat(places, missing)], 0), [train_group_size])
        pseudo = tf.cast((tf.range(train_group_size) > 0) & (missing > 0), tf.int32)
    found = {name: value for name, value in example.items() if name not in (*SIDES, *SCORES)}
    found |= {"rows": tf.gather(tf.concat([positives, negatives], 0), places), "pseudo": pseudo}
    if SCORES[0] in example:
        found["teacher_scores"] = tf.gather(tf.concat([example[name] for name in SCORES], 0), places)
    return found


def fetched(example: Example, documents: Mapping[str, tf.Tensor], width: int = 1) -> Example:
    """{rows [n], relevant} to {title [n], text [n], passage_key [n], positive_keys [p]} of those rows of the documents.

    `positive_keys` are those of the relevant passages, filled up with -1 to `width`; none without `relevant`. What
    else is in the example stays.
    """
    found = {name: value for name, value in example.items() if name not in ("rows", "relevant")}
    found |= {name: tf.gather(documents[name], example["rows"]) for name in ("title", "text")}
    found["passage_key"] = tf.cast(tf.gather(documents["key"], example["rows"]), tf.int32)
    if "relevant" in example:
        relevant = tf.cast(tf.gather(documents["key"], example["relevant"]), tf.int32)
        relevant = tf.pad(relevant, [[0, width - tf.size(relevant)]], constant_values=NO_KEY)
        found["positive_keys"] = tf.ensure_shape(relevant, [width])
    return found


def changed(examples: Example, tokenizer: TextTokenizer, config: TextConfig) -> Example:
    """{title, text, passage_key, pseudo, all [m n], seed [m 2]}: perturbs the passages where `pseudo` is 1.

    Title and text become one text. What is perturbed is the part that fits into `passage_max_len`, so that a model
    sees the change; the seed and the column decide about it.
    """

    def texts(titles, texts, keys, pseudo, seeds):
        titles, texts, keys = titles.copy(), texts.copy(), keys.copy()
        for row, column in zip(*np.nonzero(pseudo), strict=True):
            title, text = (side[row, column].decode() for side in (titles, texts))
            passage = visible(tokenizer, config, passage_text(title, text, config.title_separator))
            passage = perturbed(passage, [*map(int, seeds[row]), int(column)])
            titles[row, column], texts[row, column] = b"", passage.encode()
            keys[row, column] = passage_key("", passage)
        return titles, texts, keys

    columns = [examples[name] for name in ("title", "text", "passage_key", "pseudo", "seed")]
    found = tf.numpy_function(texts, columns, (tf.string, tf.string, tf.int32), stateful=False)
    names = ("title", "text", "passage_key")
    found = [tf.ensure_shape(value, examples["title"].shape) for value in found]
    return examples | dict(zip(names, found, strict=True))


def visible(tokenizer: TextTokenizer, config: TextConfig, passage: str) -> str:
    """The part of a passage that its ids stand for; all of it where they stand for nothing."""
    spans = [span for span in passage_spans(tokenizer, config, passage) if span[0] < span[1]]
    return passage[min(spans)[0] : max(end for _, end in spans)] if spans else passage


def encoded(examples: Example, tokenizer: TextTokenizer, config: TextConfig) -> Example:
    """{query [m], title [m n], text [m n]} to {query [m s], passage [m n t]}; what else is there stays.

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
    return {name: value for name, value in examples.items() if name not in ("title", "text")} | {
        "query": tf.ensure_shape(query, [None, config.query_max_len]),
        "passage": tf.ensure_shape(passage, [None, examples["title"].shape[1], config.passage_max_len]),
    }


def by_chunks(step: Callable[[Example], Example]) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Dataset to dataset: a step that works on many examples at once (a call into Python costs 40 us)."""
    return lambda dataset: dataset.batch(CHUNK).map(step).unbatch()
