"""Scores of a batch of queries against a block of documents, in the forms that a search holds its corpus in."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int8

Vectors = Float[Array, "*n k"] | Int8[Array, "*n k"]


class Rows(NamedTuple):
    """Dense vectors, of jax or numpy.

    Attributes:
      vectors: `[c k]`, floats or int8.
      scales: `[c]`, which integers are multiplied by.
    """

    vectors: Any
    scales: Any = None


class Terms(NamedTuple):
    """Documents as terms and weights, of jax or numpy.

    Attributes:
      ids: int `[c m]`.
      weights: `[c m]`; padding has weight 0.
    """

    ids: Any
    weights: Any


class Tiles(NamedTuple):
    """`m` tiles of `n` documents of `t` tokens, of jax or numpy; a short document repeats a token of its own.

    Attributes:
      vectors: `[m n t k]`, floats or int8.
      used: bool `[m]`, False for a tile without any document, which then costs nothing.
      scales: `[m n t]`, which integers are multiplied by.
    """

    vectors: Any
    used: Any
    scales: Any = None


class QueryTokens(NamedTuple):
    """Token vectors of `b` queries, of jax or numpy.

    Attributes:
      vectors: `[b s k]`.
      mask: bool `[b s]`, which of them count.
    """

    vectors: Any
    mask: Any


def dense_scores(queries: Float[Array, "b k"], documents: Rows) -> Float[Array, "b c"]:
    """Dot products."""
    rows = _decoded(documents.vectors, documents.scales, queries.dtype)
    exactly = precision(queries.dtype)
    return jnp.einsum("bk,ck->bc", queries, rows, precision=exactly, preferred_element_type=jnp.float32)


def lexical_scores(queries: Float[Array, "v b"], documents: Terms) -> Float[Array, "b c"]:
    """Dot products over the vocabulary, term after term: each fetches its weights in all queries at once.

    Products are rounded, and the sum has one order, so its bits do not depend on the shapes.
    """

    def add(scores: Float[Array, "c b"], term: Terms) -> tuple[Float[Array, "c b"], None]:
        products = term.weights[:, None] * jnp.take(queries, term.ids, axis=0)
        # The choice keeps compilers from fusing product and sum, which rounds once only.
        return scores + jnp.where(products == 0, 0.0, products), None

    nothing = jnp.zeros((documents.ids.shape[0], queries.shape[1]), jnp.float32)
    scores, _ = lax.scan(add, nothing, Terms(documents.ids.T, documents.weights.T))
    return scores.T


def multi_vector_scores(queries: QueryTokens, documents: Tiles) -> Float[Array, "b c"]:
    """MaxSim (Khattab and Zaharia 2020, equation 3), one tile at a time; `s` is a multiple of 8."""
    q, (b, s, k) = queries.vectors, queries.vectors.shape
    m, n, t, _ = documents.vectors.shape

    def tile_scores(tile: Vectors, scales: Float[Array, "n t"] | None) -> Float[Array, "b n"]:
        tokens = _decoded(tile, scales, q.dtype).reshape(n * t, k)
        products = lax.dot_general(
            q.reshape(b * s, k),
            tokens,
            (((1,), (1,)), ((), ())),
            precision=precision(q.dtype),
            preferred_element_type=jnp.float32,
        )
        best = jnp.max(products.reshape(b, s, n, t), axis=-1)
        return _summed(jnp.where(queries.mask[:, :, None], best, 0.0))

    def one(item: Tiles) -> Float[Array, "b n"]:
        nothing = jnp.zeros((b, n), jnp.float32)
        return lax.cond(item.used, tile_scores, lambda *_: nothing, item.vectors, item.scales)

    return jnp.moveaxis(lax.map(one, documents), 0, 1).reshape(b, m * n)


def precision(dtype: jnp.dtype) -> lax.Precision | None:
    """Of products of such queries: without it an accelerator rounds float32 to bfloat16 or to 10 bits."""
    return lax.Precision.HIGHEST if dtype == jnp.float32 else None


def _summed(best: Float[Array, "b s n"]) -> Float[Array, "b n"]:
    """The sum over `s`, in one order whatever the shape: within eights, then over them."""
    b, s, n = best.shape
    eights = best.reshape(b, s // 8, 8, n)
    sums = functools.reduce(jnp.add, (eights[:, :, place] for place in range(8)))
    return functools.reduce(jnp.add, (sums[:, place] for place in range(s // 8)))


def _decoded(x: Vectors, scales: Float[Array, "*n"] | None, dtype: jnp.dtype) -> Float[Array, "*n k"]:
    """A store's vectors in the dtype of the products."""
    return x.astype(dtype) if scales is None else (x.astype(jnp.float32) * scales[..., None]).astype(dtype)
