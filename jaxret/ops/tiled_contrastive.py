"""Losses of `ops.contrastive` whose score matrices never exist, see `ops.tiled`. Unreduced; the caller reduces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxret.ops.contrastive import info_nce
from jaxret.ops.false_negatives import other_texts
from jaxret.ops.tiled import Block, Columns, Rows, Score, Sums, Tiles, tiled_sums


class Groups(NamedTuple):
    """Queries, each with documents of its own, all of which are candidates of all; of each device its own.

    Attributes:
      q: pytree of the queries.
      d: pytree of the documents, each query's positive before its negatives.
      own_keys: [b p], keys of the texts that answer each query, see `other_texts`; they are no negatives of it.
      keys: [b n], of the documents.
      numbers: [b n], each document's, another one for every document of all devices.
      left_out: [b m], numbers of further documents that are no negatives of the query, filled up with -1.
    """

    q: Any
    d: Any
    own_keys: Int[Array, "b p"]
    keys: Int[Array, "b n"]
    numbers: Int[Array, "b n"]
    left_out: Int[Array, "b m"]


Found = tuple[Float[Array, " b"], Bool[Array, " b"]]


def tiled_info_nce(score: Score, groups: Groups, temperature: float, *, tiles: Tiles) -> Found:
    """`info_nce` over all documents (van den Oord et al. 2018), and whether the positive has the highest score of them.

    Args:
      score: of pytrees with b and c rows; a pair's score depends on its two rows alone.
      groups: queries and documents.
      temperature: divides every score.
      tiles: their sizes, and the axes of the mesh.
    """
    found = _against_documents(score, groups, temperature, tiles)
    return jax.nn.softplus(found.along - found.own), found.first


def tiled_symmetric_info_nce(score: Score, groups: Groups, temperature: float, *, tiles: Tiles) -> Found:
    """`symmetric_info_nce` (CLIP, Radford et al. 2021): one matrix is summed along its rows and down its columns."""
    found = _against_documents(score, groups, temperature, tiles, down=True)
    there, back = found.along, _of_positives(found.down, groups)
    return (jax.nn.softplus(there - found.own) + jax.nn.softplus(back - found.own)) / 2, found.first


def tiled_pair_and_in_batch(score: Score, groups: Groups, temperature: float, *, tiles: Tiles) -> Found:
    """`pair_and_in_batch` (ColBERT, Santhanam et al. 2022), whose `ways` are all documents of a query's own."""
    found = _against_documents(score, groups._replace(left_out=groups.numbers), temperature, tiles)
    kept = other_texts(groups.own_keys, groups.keys) & other_texts(groups.left_out, groups.numbers)
    own = _own_scores(score, groups.q, groups.d, max(1, tiles.columns // groups.keys.shape[1]))
    among_own = info_nce(own, jnp.zeros(len(own), jnp.int32), temperature, where=kept)
    return among_own + jax.nn.softplus(found.along - found.own), found.first


def tiled_improved_contrastive(
    score: Score,
    groups: Groups,
    temperature: float,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    delta: float = 0.0,
    tiles: Tiles,
) -> Float[Array, " b"]:
    """`improved_contrastive` (Granite, Awasthy et al. 2025, eqs. 1-3); what has weight 0 is not computed.

    Delta's sums are those down the columns of alpha's matrix. Weights as there, all else as in `tiled_info_nce`.
    """
    sides = {"q": groups.q} if max(alpha, delta) > 0 else {}
    sides |= {"p": _positives(groups)} if gamma > 0 else {}
    blocks = [Block(_scaled(score, temperature, side), side == "q" and delta > 0) for side in sides]
    found = dict(zip(sides, _sums(blocks, sides, groups, _documents(groups), tiles), strict=True))
    if "q" in found:
        own = found["q"].own
    else:
        own = _own_scores(score, groups.q, _positives(groups), tiles.columns)[:, 0] / temperature
    parts = [(1.0 + delta, own)]
    if alpha > 0:
        parts += [(alpha, found["q"].along)]
    if delta > 0:
        parts += [(delta, _of_positives(found["q"].down, groups))]
    if gamma > 0:
        parts += [(gamma, found["p"].along)]
    if beta > 0:
        queries = Columns(groups.q, groups.keys[:, 0], groups.numbers[:, 0])
        block = Block(_scaled(score, temperature, "q"))
        parts += [(beta, _sums([block], {"q": groups.q}, groups, queries, tiles)[0].along)]
    return jax.nn.logsumexp(jnp.stack([x - own + math.log(weight) for weight, x in parts], axis=1), axis=1)


def _against_documents(score: Score, groups: Groups, temperature: float, tiles: Tiles, *, down: bool = False) -> Sums:
    block = Block(_scaled(score, temperature, "q"), down)
    return _sums([block], {"q": groups.q}, groups, _documents(groups), tiles)[0]


def _sums(blocks: Sequence[Block], sides: dict[str, Any], groups: Groups, columns: Columns, tiles: Tiles) -> list[Sums]:
    """Of each query's `sides`; its own column is its positive's, or the query itself, which bears that number."""
    if not blocks:
        return []
    return tiled_sums(blocks, Rows(sides, groups.own_keys, groups.numbers[:, 0], groups.left_out), columns, tiles)


def _scaled(score: Score, temperature: float, side: str) -> Score:
    return lambda x, y: score(x[side], y).astype(jnp.float32) / temperature


def _documents(groups: Groups) -> Columns:
    return Columns(groups.d, groups.keys.reshape(-1), groups.numbers.reshape(-1))


def _positives(groups: Groups) -> Any:
    return jax.tree.map(lambda x: x[:: groups.keys.shape[1]], groups.d)


def _of_positives(x: Float[Array, " c"] | None, groups: Groups) -> Float[Array, " b"]:
    return jnp.asarray(x)[:: groups.keys.shape[1]]


def _own_scores(score: Score, q: Any, d: Any, at_once: int) -> Float[Array, "b n"]:
    """Scores of every query against its own documents, of so many queries in memory."""
    (queries, one), (documents, other) = jax.tree.flatten(q), jax.tree.flatten(d)
    b = len(queries[0])

    def scores(entry: tuple[list[Array], list[Array]]) -> Float[Array, " n"]:
        x, y = entry
        return score(jax.tree.unflatten(one, [leaf[None] for leaf in x]), jax.tree.unflatten(other, y))[0]

    grouped = [x.reshape(b, -1, *x.shape[1:]) for x in documents]
    return lax.map(jax.checkpoint(scores, prevent_cse=False), (queries, grouped), batch_size=min(at_once, b))
