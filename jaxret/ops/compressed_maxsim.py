"""MaxSim of one query against compressed documents: by their centroids alone, and by their decompressed vectors.

Documents are rows `starts[i] : starts[i] + lengths[i]` of flat arrays of tokens. They are taken in blocks, and of a
block's tokens so many at a time that its longest document is through: documents in the order of their lengths leave
next to nothing to padding. A document of length 0 scores -inf and costs nothing when its block has no other; it too
starts at a token that is there. Nothing is checked: codes and starts outside of the arrays read anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from jaxret.ops.residuals import inverse_lengths, unpacked_weights

CENTROID_BLOCK, CENTROID_TOKENS = 256, 32
EXACT_BLOCK, EXACT_TOKENS = 16, 64
INSIDE = "promise_in_bounds"


class Compressed(NamedTuple):
    """Documents' tokens one after the other.

    Attributes:
      codes: the centroid of each token.
      residuals: packed, `p` bytes a token.
    """

    codes: Int[Array, " n"]
    residuals: UInt8[Array, "n p"]


class Codebook(NamedTuple):
    """What decompresses them.

    Attributes:
      centroids: in plane order.
      weights: of the residual's buckets.
    """

    centroids: Float[Array, "c k"]
    weights: Float[Array, " m"]


def centroid_maxsim(
    table: Float[Array, "c s"], codes: Int[Array, " n"], starts: Int[Array, " d"], lengths: Int[Array, " d"]
) -> Float[Array, " d"]:
    """MaxSim where each document token scores as its centroid does (PLAID, Santhanam et al. 2022, 4.2).

    Args:
      table: products of all centroids and query tokens; a row of -inf leaves out a pruned centroid.
      codes: the centroid of each token.
      starts, lengths: of the documents.
    """

    def best(rows: Int[Array, "d t"]) -> Float[Array, "d s"]:
        # Rows past a document's end are its own last token, so nothing is masked. The barrier keeps XLA from looking
        # up a token's centroid once for each query token.
        near = lax.optimization_barrier(codes.at[rows].get(mode=INSIDE))
        return jnp.max(table.at[near].get(mode=INSIDE), axis=1)

    return _in_blocks(best, table.shape[1], starts, lengths, CENTROID_BLOCK, CENTROID_TOKENS)


def decompressed_maxsim(
    q: Float[Array, "s k"],
    documents: Compressed,
    codebook: Codebook,
    starts: Int[Array, " d"],
    lengths: Int[Array, " d"],
) -> Float[Array, " d"]:
    """MaxSim with the decompressed vectors, a block of documents at a time.

    Args:
      q: the query's vectors in plane order; a vector of zeros adds nothing.
      documents, codebook: the compressed vectors and what decompresses them.
      starts, lengths: of the documents.
    """

    def best(rows: Int[Array, "d t"]) -> Float[Array, "d s"]:
        flat = rows.reshape(-1)
        near = codebook.centroids.at[documents.codes.at[flat].get(mode=INSIDE)].get(mode=INSIDE)
        vectors = near + unpacked_weights(documents.residuals.at[flat].get(mode=INSIDE), codebook.weights)
        products = jnp.einsum("nk,sk->ns", vectors, q, preferred_element_type=jnp.float32)
        products = products * inverse_lengths(vectors)
        return jnp.max(products.reshape(*rows.shape, -1), axis=1)

    return _in_blocks(best, q.shape[0], starts, lengths, EXACT_BLOCK, EXACT_TOKENS)


def _in_blocks(
    best: Callable[[Int[Array, "d t"]], Float[Array, "d s"]],
    num_query_tokens: int,
    starts: Int[Array, " d"],
    lengths: Int[Array, " d"],
    block: int,
    tokens: int,
) -> Float[Array, " d"]:
    """The sums of the largest products of each query token; `best` gives them for some tokens of a block."""
    count = starts.shape[0]
    block = min(block, count)
    padding = (0, -count % block)

    def one(documents: tuple[Int[Array, " d"], Int[Array, " d"]]) -> Float[Array, " d"]:
        first, length = documents

        def step(number: Int[Array, ""], so_far: Float[Array, "d s"]) -> Float[Array, "d s"]:
            places = number * tokens + jnp.arange(tokens, dtype=jnp.int32)[None, :]
            rows = first[:, None] + jnp.clip(places, 0, jnp.maximum(length[:, None] - 1, 0))
            return jnp.maximum(so_far, best(rows))

        steps = (jnp.max(length) + tokens - 1) // tokens
        found = lax.fori_loop(0, steps, step, jnp.full((block, num_query_tokens), -jnp.inf, jnp.float32))
        return jnp.where(length > 0, jnp.sum(found, axis=1), -jnp.inf)

    blocks = tuple(jnp.pad(part, padding).reshape(-1, block) for part in (starts, lengths))
    return lax.map(one, blocks).reshape(-1)[:count]
