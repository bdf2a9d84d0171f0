"""From running text to training examples, one step a function, each example -> example on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from jaxret.data.masking import MaskedLM, Words
from jaxret.data.preprocessors import Example
from jaxret.data.tensorflow_cpu import tf
from jaxret.data.text import TextConfig, padded, passage_ids
from jaxret.data.text_tokenizer import TextTokenizer


def context_pair(example: Example, window: int) -> Example:
    """{sentences [n], key, seed} to {center, context, document, seed}: a sentence, and one at most `window` away.

    Both are drawn uniformly, by the example's seed (two integers) alone; the context is never the centre itself. What
    else is in the example stays.
    """
    sentences, seed = example["sentences"], example["seed"]
    size = tf.size(sentences)

    def drawn(number: int, end: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform(
            [], seed + tf.constant([number, 0], seed.dtype), 0, end, tf.int32, alg="philox"
        )

    center = drawn(0, size)
    first, last = tf.maximum(center - window, 0), tf.minimum(center + window, size - 1)
    context = first + drawn(1, last - first)
    context += tf.cast(context >= center, tf.int32)
    pair = {"center": sentences[center], "context": sentences[context]}
    rest = {name: value for name, value in example.items() if name not in ("sentences", "key")}
    return rest | pair | {"document": tf.cast(example["key"], tf.int32)}


def numbered(examples: Example, names: Sequence[str], tokenizer: TextTokenizer, config: TextConfig) -> Example:
    """Texts [m] of these names to ids [m l] as of passages; what else is in the examples stays."""

    def ids(texts: np.ndarray) -> np.ndarray:
        return padded(passage_ids(tokenizer, config, [text.decode() for text in texts]), config.passage_max_len)

    rows = {name: tf.numpy_function(ids, [examples[name]], tf.int32, stateful=False) for name in names}
    return examples | {name: tf.ensure_shape(row, [None, config.passage_max_len]) for name, row in rows.items()}


def numbered_together(example: Example, tokenizer: TextTokenizer, config: TextConfig) -> Example:
    """{texts [n]} to {tokens [l], segments [l]}: their ids as of passages, one after another, and each text's number.

    Both are filled up with -1 to `passage_max_len`. What else is in the example stays.
    """

    def ids(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = passage_ids(tokenizer, config, [text.decode() for text in texts])
        segments = [[number] * len(row) for number, row in enumerate(rows)]
        found = padded([[*chain(*rows)], [*chain(*segments)]], config.passage_max_len)
        return found[0], found[1]

    columns = tf.numpy_function(ids, [example["texts"]], (tf.int32, tf.int32), stateful=False)
    rest = {name: value for name, value in example.items() if name != "texts"}
    rows = (tf.ensure_shape(column, [config.passage_max_len]) for column in columns)
    return rest | dict(zip(("tokens", "segments"), rows, strict=True))


def masked(examples: Example, masking: MaskedLM, words: Words) -> Example:
    """{tokens [m l], seed [m 2]} and what else is there, with what a masking makes of them."""
    names = list(masking.ranks)

    def rows(ids: np.ndarray, seeds: np.ndarray) -> list[np.ndarray]:
        found = masking.rows(ids, seeds, words)
        return [found[name] for name in names]

    columns = [examples["tokens"], examples["seed"]]
    made = tf.numpy_function(rows, columns, [tf.int32] * len(names), stateful=False)
    length = examples["tokens"].shape[1]
    shapes = [[None, length][: masking.ranks[name]] for name in names]
    return examples | {name: tf.ensure_shape(*each) for name, *each in zip(names, made, shapes, strict=True)}
