"""The stages of PLAID's search (Santhanam et al. 2022, section 4) on one device's shard.

Shapes are static: a query's candidates are a list of document numbers, ascending, with the shard's "none" behind the
last one. Sets that are cut to their best are cut over all devices, so their number changes no result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxret.ops.compressed_maxsim import Codebook, centroid_maxsim, decompressed_maxsim
from jaxret.ops.places import places_of_true
from jaxret.ops.topk import EMPTY, TopK, merged
from jaxret.search.plaid.shards import Shard


@dataclass(frozen=True)
class Pruning:
    """How much of the corpus a query looks at.

    Attributes:
      ncells: centroids probed for each query token; 0 looks at every document and prunes none.
      centroid_score_threshold: a centroid that no query token scores as high as this counts in the first cut as none.
      ndocs: documents that pass the first cut; a fourth of them passes the second and is decompressed.
    """

    ncells: int
    centroid_score_threshold: float
    ndocs: int


UNPRUNED = Pruning(0, 0.0, 0)


def published_pruning(k: int) -> Pruning:
    """The reference's settings for `k` results."""
    if k <= 10:
        return Pruning(1, 0.5, 256)
    if k <= 100:
        return Pruning(2, 0.45, 1024)
    return Pruning(4, 0.4, max(4 * k, 4096))


def probed_cells(
    q: Float[Array, "b s k"], mask: Bool[Array, "b s"], centroids: Float[Array, "c k"], ncells: int
) -> tuple[Float[Array, "b c s"], Int[Array, "b l"]]:
    """Products of centroids and query tokens, 0 at padding, and the best cells of all tokens; `c` is no cell.

    A cell that several tokens of a query choose is there once.
    """
    products = jnp.einsum("bsk,ck->bsc", q, centroids, preferred_element_type=jnp.float32)
    products = jnp.where(mask[:, :, None], products, 0.0)
    count = centroids.shape[0]
    _, best = lax.top_k(products, min(ncells, count))
    cells = jnp.sort(jnp.where(mask[:, :, None], best, count).reshape(q.shape[0], -1), axis=1)
    again = jnp.pad(cells[:, 1:] == cells[:, :-1], ((0, 0), (1, 0)))
    return jnp.swapaxes(products, 1, 2), jnp.where(again, count, cells)


def num_listed(cells: Int[Array, "b l"], shard: Shard) -> Int[Array, " b"]:
    """The number of entries in the lists of some cells."""
    return jnp.sum(shard.list_starts[cells + 1] - shard.list_starts[cells], axis=1)


def candidates(cells: Int[Array, "b l"], shard: Shard, capacity: int) -> Int[Array, "b m"]:
    """The documents in the lists of each query's cells, each once; `capacity` is at least the number of entries."""
    documents = shard.lengths.shape[0]
    slots = jnp.arange(capacity, dtype=jnp.int32)

    def one(cells: Int[Array, " l"]) -> Int[Array, " m"]:
        sizes = shard.list_starts[cells + 1] - shard.list_starts[cells]
        ends = jnp.cumsum(sizes)
        which = jnp.minimum(jnp.searchsorted(ends, slots, side="right", method="compare_all"), len(ends) - 1)
        entry = shard.list_starts[cells[which]] + slots - (ends - sizes)[which]
        listed = jnp.where(slots < ends[-1], shard.listed.at[entry].get(mode="clip"), documents - 1)
        found = jnp.zeros(documents, bool).at[listed].set(True).at[documents - 1].set(False)
        return places_of_true(found, min(capacity, documents), documents - 1)

    return jax.vmap(one)(cells)


def pruned(
    table: Float[Array, "b c s"],
    mask: Bool[Array, "b s"],
    shard: Shard,
    found: Int[Array, "b m"],
    pruning: Pruning,
    axes: tuple[str, ...],
) -> Int[Array, "b r"]:
    """The candidates that pass both cuts, by the scores of their centroids."""

    def cut(scores: Callable[[Float[Array, "c s"], Bool[Array, " s"]], Float[Array, "c s"]], found: Array, count: int):
        def one(query: tuple[Array, Array, Array]) -> Float[Array, " m"]:
            table, mask, found = query
            documents = (shard.starts[found], shard.lengths[found])
            return centroid_maxsim(scores(table, mask), shard.tokens.codes, *documents)

        if found.shape[1] * lax.axis_size(axes) <= count:
            return found
        return _best(lax.map(one, (table, mask, found)), found, shard, count, axes)

    def near(table: Float[Array, "c s"], mask: Bool[Array, " s"]) -> Float[Array, "c s"]:
        highest = jnp.max(jnp.where(mask[None, :], table, -jnp.inf), axis=1, keepdims=True)
        return jnp.where(highest >= pruning.centroid_score_threshold, table, -jnp.inf)

    found = cut(near, found, pruning.ndocs)
    return cut(lambda table, mask: table, found, pruning.ndocs // 4)


def ranked(
    q: Float[Array, "b s k"], shard: Shard, codebook: Codebook, found: Int[Array, "b r"], k: int, axes: tuple[str, ...]
) -> TopK:
    """The best k of some documents over all devices, by their decompressed vectors."""

    def one(query: tuple[Float[Array, "s k"], Int[Array, " r"]]) -> Float[Array, " r"]:
        q, found = query
        return decompressed_maxsim(q, shard.tokens, codebook, shard.starts[found], shard.lengths[found])

    scores = lax.map(one, (q, found))
    local = _filled(TopK(scores, shard.positions[found]), k)
    return merged(_everywhere(merged(local, k), axes), k)


def _best(
    scores: Float[Array, "b m"], found: Int[Array, "b m"], shard: Shard, count: int, axes: tuple[str, ...]
) -> Int[Array, "b r"]:
    """This device's documents among the `count` best of all devices; of equal ones the lower number of all."""
    none = shard.lengths.shape[0] - 1
    scores = jnp.where(scores == 0, 0.0, scores)  # top_k ranks -0.0 and 0.0 apart
    top, index = lax.top_k(scores, min(count, scores.shape[1]))
    chosen = jnp.take_along_axis(found, index, axis=1)
    devices = lax.axis_size(axes)
    if devices > 1:
        number = jnp.where(chosen == none, EMPTY, chosen * devices + lax.axis_index(axes))
        everywhere = merged(_everywhere(TopK(top, number), axes), min(count, devices * top.shape[1]))
        score, last = everywhere.scores[:, -1:], everywhere.positions[:, -1:]
        inside = (top > score) | ((top == score) & (number <= last))
        chosen = jnp.where(inside, chosen, none)
    return jnp.sort(chosen, axis=1)


def _everywhere(part: TopK, axes: tuple[str, ...]) -> TopK:
    """The results of all devices side by side."""
    gathered = (jnp.moveaxis(lax.all_gather(x, axes), 0, 1) for x in part)
    return TopK(*(x.reshape(x.shape[0], -1) for x in gathered))


def _filled(part: TopK, k: int) -> TopK:
    """With empty slots up to k."""
    missing = ((0, 0), (0, max(0, k - part.scores.shape[1])))
    scores = jnp.pad(part.scores, missing, constant_values=-jnp.inf)
    return TopK(scores, jnp.pad(part.positions, missing, constant_values=EMPTY))
