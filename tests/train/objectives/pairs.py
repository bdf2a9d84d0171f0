"""A tiny cross-encoder and batches for it."""

import numpy as np

from jaxret.data.pairs import PairConfig, padded_types, pair_rows
from jaxret.data.text import padded
from jaxret.nn.config import EncoderConfig
from jaxret.nn.cross_encoder import CrossEncoderConfig, ScoreHeadConfig
from jaxret.runtime.cross_encoder import CrossEncoderModel

B, LENGTH = 8, 24
TEXTS = ["the cat sleeps", "an owl", "by the river", "under a tree, alone", "bread and rain"]


def scorer(tokenizer, dropout=0.1):
    """The model."""
    sizes = EncoderConfig(
        tokenizer.size, width=16, num_layers=1, num_heads=2, mlp_width=12, num_types=2, dropout=dropout
    )
    config = CrossEncoderConfig(sizes, ScoreHeadConfig(pooling="mean", dropout=0.2))
    return CrossEncoderModel(config, PairConfig(LENGTH), tokenizer)


def batch(model, ways, rows=B):
    """Query 2 has a copy of its positive among its negatives, query 5 another relevant text."""
    random = np.random.default_rng(0)
    queries = [TEXTS[n % 5] for n in range(rows) for _ in range(ways)]
    pairs = pair_rows(model.tokenizer, model.text, queries, [TEXTS[n] for n in random.integers(0, 5, rows * ways)])
    keys = np.arange(rows * ways, dtype=np.int32).reshape(rows, ways)
    keys[2, 1] = keys[2, 0]
    positives = np.full((rows, 2), -1, np.int32)
    positives[:, 0] = keys[:, 0]
    positives[5, 1] = keys[5, 2]
    return {
        "pair": padded([pair.ids for pair in pairs], LENGTH).reshape(rows, ways, LENGTH),
        "pair_types": padded_types(pairs, LENGTH).reshape(rows, ways, LENGTH),
        "passage_key": keys,
        "positive_keys": positives,
        "teacher_scores": random.normal(size=(rows, ways)).astype(np.float32) * 3,
    }
