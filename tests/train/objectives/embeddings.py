"""Random embeddings of a batch, and the score of one pair of them by a plain loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxret.nn.retriever import Embeddings, Terms
from jaxret.train.objectives.represented import Represented

VOCABULARY, WIDTH = 11, 5


def side(rows, length, random):
    """Embeddings of so many texts, some of them shorter, with every head."""
    dense = random.normal(size=(rows, WIDTH))
    tokens = random.normal(size=(rows, length, WIDTH))
    lengths = random.integers(1, length + 1, rows)
    return Embeddings(
        jnp.asarray(dense / np.linalg.norm(dense, axis=1, keepdims=True), jnp.float32),
        Terms(
            jnp.asarray(np.maximum(random.normal(size=(rows, length)), 0), jnp.float32),
            jnp.asarray(random.integers(0, VOCABULARY, (rows, length))),
            VOCABULARY,
        ),
        jnp.asarray(tokens / np.linalg.norm(tokens, axis=2, keepdims=True), jnp.float32),
        jnp.asarray(np.arange(length)[None, :] < lengths[:, None]),
    )


def example(b=4, n=3, seed=0):
    """Embeddings and batch; query 3 has the positive of query 1, which is a negative of query 2 as well."""
    random = np.random.default_rng(seed)
    keys = np.arange(b * n).reshape(b, n) + 100
    keys[3, 0] = keys[2, 1] = keys[1, 0]
    batch = {
        "passage_key": jnp.asarray(keys),
        "teacher_scores": jnp.asarray(random.normal(size=(b, n)) * 3, jnp.float32),
    }
    return Represented(side(b, 4, random), side(b * n, 6, random)), batch


def compiled(function, /, **settings):
    """A function with its settings as one program."""
    return jax.jit(functools.partial(function, **settings))


def pair_score(head, q, i, d, j):
    """The score of text i of `q` and text j of `d`."""
    if head == "dense":
        return float(np.dot(np.asarray(q.dense)[i], np.asarray(d.dense)[j]))
    if head == "lexical":
        best = [{}, {}]
        for place, (e, row) in enumerate(((q, i), (d, j))):
            for token, weight in zip(np.asarray(e.lexical.ids)[row], np.asarray(e.lexical.weights)[row], strict=True):
                best[place][token] = max(best[place].get(token, 0.0), float(weight))
        return sum(weight * best[1].get(token, 0.0) for token, weight in best[0].items())
    kept = np.asarray(d.tokens)[j][np.asarray(d.mask)[j]]
    return sum(max(float(np.dot(x, y)) for y in kept) for x in np.asarray(q.tokens)[i][np.asarray(q.mask)[i]])


def table(head, q, d):
    """All scores of `q` against `d`."""
    rows, columns = len(q.dense), len(d.dense)
    return np.array([[pair_score(head, q, i, d, j) for j in range(columns)] for i in range(rows)])


HEADS = ("dense", "lexical", "multi_vector")


def nll(logits, own, kept):
    """`-log` of the share of column `own` among the kept ones, a row at a time."""
    rows = []
    for row, column, mask in zip(logits, own, kept, strict=True):
        among = [x for place, x in enumerate(row) if mask[place] or place == column]
        rows.append(np.log(np.sum(np.exp(among))) - row[column])
    return np.array(rows)


def known(batch):
    """False where a passage is a copy of the query's own positive."""
    keys = np.asarray(batch["passage_key"])
    return keys[:, :1] != keys.reshape(1, -1)
