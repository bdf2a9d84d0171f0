"""Exact search: a corpus in blocks over the mesh, scored block by block with a running top-k.

The blocks have the same shapes whatever the number of devices, and ties go by position, so 1 and 8 devices give
the same positions and the same scores to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from jaxret.errors import InputError
from jaxret.ops.topk import EMPTY, TopK, merged, scanned_top_k
from jaxret.runtime.mesh import AXES
from jaxret.runtime.precision import cast, compute_dtype
from jaxret.search.lengths import by_bucket
from jaxret.search.vectors import Vectors

TILE_TOKENS = 1024
BLOCK_DOCUMENTS = 1024
QUERY_BATCH = 64


def multi_vector_scores(
    queries: tuple[Float[Array, "b s k"], Bool[Array, "b s"]], block: tuple[Float[Array, "m n t k"], Bool[Array, " m"]]
) -> Float[Array, "b c"]:
    """MaxSim of a query batch against `m` tiles of `n` documents; short documents repeat a token of theirs.

    Tiles that hold no document (False in the block's second array) cost nothing.
    """
    q, q_mask = queries
    b, s, k = q.shape
    tiles, used = block
    m, n, t, _ = tiles.shape

    def tile_scores(tile: Float[Array, "n t k"]) -> Float[Array, "b n"]:
        products = lax.dot_general(
            q.reshape(b * s, k), tile.reshape(n * t, k), (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        best = jnp.max(products.reshape(b, s, n, t), axis=-1)
        return jnp.sum(jnp.where(q_mask[:, :, None], best, 0.0), axis=1)

    def one(item: tuple[Float[Array, "n t k"], Bool[Array, ""]]) -> Float[Array, "b n"]:
        tile, has_documents = item
        return lax.cond(has_documents, tile_scores, lambda _: jnp.zeros((b, n), jnp.float32), tile)

    return jnp.moveaxis(lax.map(one, (tiles, used)), 0, 1).reshape(b, m * n)


def dense_scores(queries: Float[Array, "b e"], documents: Float[Array, "c e"]) -> Float[Array, "b c"]:
    """Dot products."""
    return jnp.einsum("be,ce->bc", queries, documents, preferred_element_type=jnp.float32)


def lexical_scores(
    queries: Float[Array, "b v"], documents: tuple[Int[Array, "c m"], Float[Array, "c m"]]
) -> Float[Array, "b c"]:
    """Dot products over the vocabulary against documents given as `m` terms and weights; padding has weight 0."""
    terms, weights = documents

    def one(query: Float[Array, " v"]) -> Float[Array, " c"]:
        return jnp.sum(jnp.take(query, terms) * weights, axis=1)

    return lax.map(one, queries)


SCORES: dict[str, Callable] = {
    "dense": dense_scores,
    "lexical": lexical_scores,
    "multi_vector": multi_vector_scores,
}


@lru_cache(maxsize=16)
def sharded_top_k(score: Callable, k: int, mesh: Mesh) -> Callable[[Any, Any, Int[Array, "n c"]], TopK]:
    """A jitted `(queries, blocks, positions) -> TopK`: each device scans its blocks, then the results are merged.

    The same arguments give the same function, so that searches of blocks of one shape compile once.
    """

    def local(queries: Any, blocks: Any, positions: Int[Array, "n c"]) -> TopK:
        best = scanned_top_k(score, queries, blocks, positions, k)
        gathered = (jnp.moveaxis(lax.all_gather(part, AXES), 0, 1) for part in best)
        return merged(TopK(*(part.reshape(part.shape[0], -1) for part in gathered)), k)

    spread, whole = PartitionSpec(AXES), PartitionSpec()
    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(whole, spread, spread), out_specs=whole, check_vma=False))


class ExactSearch:
    """One representation of a corpus on the mesh, searched exactly.

    Args:
      mode: "dense", "lexical" or "multi_vector".
      corpus: the documents' vectors; a document's position is its row.
      mesh: the devices that share the corpus.
      k: results a query.
      vocab_size: length of a lexical vector (for "lexical" only).
      dtype: of the vectors in the products; scores are float32 whatever it is.

    Raises:
      InputError: k is larger than the corpus, or the corpus lacks the representation.
    """

    def __init__(
        self, mode: str, corpus: Vectors, mesh: Mesh, k: int, vocab_size: int | None = None, dtype: str = "float32"
    ):
        if mode not in SCORES:
            raise InputError("mode", f"unknown {mode!r}", f"Choose one of {', '.join(SCORES)}.")
        if not 1 <= k <= len(corpus):
            raise InputError("k", f"{k} results of a corpus of {len(corpus)} documents", f"Give 1 to {len(corpus)}.")
        self.mode, self.k, self._vocab_size = mode, k, vocab_size or 0
        self._top_k = sharded_top_k(SCORES[mode], k, mesh)
        self._whole = NamedSharding(mesh, PartitionSpec())
        spread = NamedSharding(mesh, PartitionSpec(AXES))
        self._dtype = compute_dtype(dtype)
        groups = BLOCKS[mode](corpus, mesh.devices.size)
        self._groups = [jax.device_put(cast(group, self._dtype), spread) for group in groups]
        self._merge = jax.jit(partial(merged, k=k))

    def __call__(
        self, queries: Vectors, progress: Callable[[int], None] | None = None
    ) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
        """Scores and positions of the best k documents for each query, best first; ties by ascending position."""
        found: list[list[np.ndarray]] = [[np.zeros((0, self.k), np.float32), np.zeros((0, self.k), np.int32)]]
        for rows in range(0, len(queries), QUERY_BATCH):
            count = min(QUERY_BATCH, len(queries) - rows)
            batch = jax.device_put(cast(self._query_batch(queries, rows, count), self._dtype), self._whole)
            parts = [self._top_k(batch, *group) for group in self._groups]
            best = parts[0]
            for part in parts[1:]:
                best = self._merge(TopK(*(jnp.concatenate(pair, axis=1) for pair in zip(best, part, strict=True))))
            found.append([np.asarray(part)[:count] for part in best])
            if progress:
                progress(count)
        scores, positions = zip(*found, strict=True)
        return np.concatenate(scores), np.concatenate(positions)

    def _query_batch(self, queries: Vectors, start: int, count: int) -> Any:
        """One batch of a fixed shape; rows past the last query repeat the first."""
        rows = np.concatenate([np.arange(start, start + count), np.full(QUERY_BATCH - count, start)])
        if self.mode == "dense":
            return queries.needed("dense")[rows]
        if self.mode == "lexical":
            dense = np.zeros((QUERY_BATCH, self._vocab_size), np.float32)
            for place, row in enumerate(rows.tolist()):
                dense[place, queries.needed("term_ids").row(row)] = queries.needed("term_weights").row(row)
            return dense
        lengths = queries.needed("tokens").lengths
        longest = int(lengths.max())
        mask = np.arange(longest)[None, :] < lengths[rows][:, None]
        return queries.needed("tokens").padded(rows, longest), mask


def _dense_blocks(corpus: Vectors, devices: int) -> Iterator[tuple[Any, np.ndarray]]:
    rows = _blocked(np.arange(len(corpus)), BLOCK_DOCUMENTS, devices)
    yield corpus.needed("dense")[np.where(rows == EMPTY, 0, rows)], rows


def _lexical_blocks(corpus: Vectors, devices: int) -> Iterator[tuple[Any, np.ndarray]]:
    for length, members in by_bucket(corpus.needed("term_ids").lengths):
        rows = _blocked(members, BLOCK_DOCUMENTS, devices)
        chosen = np.where(rows == EMPTY, members[0], rows).reshape(-1)
        terms = corpus.needed("term_ids").padded(chosen, length)
        weights = corpus.needed("term_weights").padded(chosen, length)
        weights[np.arange(length)[None, :] >= corpus.needed("term_ids").lengths[chosen][:, None]] = 0.0
        yield tuple(part.reshape(*rows.shape, length) for part in (terms, weights)), rows


def _multi_vector_blocks(corpus: Vectors, devices: int) -> Iterator[tuple[Any, np.ndarray]]:
    for length, members in by_bucket(corpus.needed("tokens").lengths):
        documents = max(1, TILE_TOKENS // length)
        tiles = max(1, BLOCK_DOCUMENTS // documents)
        rows = _blocked(members, tiles * documents, devices)
        chosen = np.where(rows == EMPTY, members[0], rows).reshape(-1)
        shape = (len(rows), tiles, documents, length, corpus.needed("tokens").values.shape[1])
        used = np.any(rows.reshape(len(rows), tiles, documents) != EMPTY, axis=-1)
        yield (corpus.needed("tokens").padded(chosen, length).reshape(shape), used), rows


BLOCKS: dict[str, Callable] = {
    "dense": _dense_blocks,
    "lexical": _lexical_blocks,
    "multi_vector": _multi_vector_blocks,
}


def _blocked(members: np.ndarray, size: int, devices: int) -> np.ndarray:
    """Positions in blocks `[n size]`, n a multiple of the devices; EMPTY fills the last ones."""
    count = -(-len(members) // (size * devices)) * devices
    blocks = np.full(count * size, EMPTY, np.int32)
    blocks[: len(members)] = members
    return blocks.reshape(count, size)
