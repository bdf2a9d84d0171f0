"""Exact search: a corpus goes over the devices in blocks, each scored while the next is read, with a running top-k.

A document's score has the same bits on any number of devices, from memory or from a store: see `search.blocks`. Ties go
by position, so the results are the same too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxret.errors import InputError
from jaxret.ops.topk import EMPTY, TopK, empty_top_k, merged, with_block
from jaxret.runtime.mesh import AXES
from jaxret.runtime.precision import compute_dtype
from jaxret.search.blocks import MODES, SIZES, Group
from jaxret.search.budget import fits, part_bytes
from jaxret.search.by_vocabulary import VocabularySearch
from jaxret.search.lanes import in_lanes
from jaxret.search.processes import best_of_processes
from jaxret.search.query_batches import query_batches
from jaxret.search.reduced import ReducedSearch, pays, workspace
from jaxret.search.store import StoredVectors
from jaxret.search.vectors import Vectors

SPREAD, WHOLE = PartitionSpec(AXES), PartitionSpec()
LEXICAL_FORMS = ("by_vocabulary", "pairwise")


class Programs(NamedTuple):
    """What runs on the devices.

    Attributes:
      empty: `(b) -> [devices b k]`, each device's best so far: none.
      step: `(best, queries, block, positions) -> best`, a block a device; nothing travels.
      finish: `(lanes) -> [b k]`, the best of several `[devices b k]`.
    """

    empty: Callable[[int], TopK]
    step: Callable[..., TopK]
    finish: Callable[[list[TopK]], TopK]


@lru_cache(maxsize=16)
def programs(score: Callable, k: int, mesh: Mesh) -> Programs:
    """Compiled once for each shape of queries and of a block; the same arguments give the same functions."""

    def empty(b: int) -> TopK:
        return TopK(*(jnp.broadcast_to(part, (mesh.size, b, k)) for part in empty_top_k(b, k)))

    def step(best: TopK, queries: Any, block: Any, positions: Int[Array, "1 c"]) -> TopK:
        mine, documents = jax.tree.map(lambda x: x[0], (best, block))
        return jax.tree.map(lambda x: x[None], with_block(mine, score(queries, documents), positions[0]))

    def finish(lanes: list[TopK]) -> TopK:
        def side_by_side(*parts: Array) -> Array:
            gathered = jnp.concatenate([lax.all_gather(part[0], AXES) for part in parts])
            return jnp.moveaxis(gathered, 0, 1).reshape(gathered.shape[1], -1)

        return merged(jax.tree.map(side_by_side, *lanes), k)

    sharded = partial(jax.shard_map, mesh=mesh, check_vma=False)
    return Programs(
        jax.jit(empty, static_argnums=0, out_shardings=NamedSharding(mesh, SPREAD)),
        jax.jit(sharded(step, in_specs=(SPREAD, WHOLE, SPREAD, SPREAD), out_specs=SPREAD), donate_argnums=0),
        jax.jit(sharded(finish, in_specs=SPREAD, out_specs=WHOLE)),
    )


class ExactSearch:
    """One representation of a corpus, searched exactly.

    Args:
      mode: "dense", "lexical" or "multi_vector".
      corpus: the documents' vectors, in memory or stored; a document's position is its row.
      mesh: the devices that share the corpus, all of this process.
      k: results a query.
      vocab_size: length of a lexical vector (for "lexical" only).
      dtype: of the vectors in the products; scores are float32 whatever it is.
      memory_budget_gb: what this process may hold, in GB (10^9 bytes): if the corpus does not fit, each call reads it
        again in parts that do. None keeps the whole corpus on the devices.
      share: (number, count): this process scores every count-th part of the corpus, then all of them exchange results,
        so every process makes the same calls.
      lexical_form: where lexical scores are added up, with the same bits: "by_vocabulary", on the host, from the
        documents of each of a query's terms; "pairwise", on the devices, from the terms of each document. None is
        the former where the devices are CPUs.

    Raises:
      InputError: k is larger than the corpus, the corpus lacks the representation, or no such form.
    """

    def __init__(
        self,
        mode: str,
        corpus: Vectors | StoredVectors,
        mesh: Mesh,
        k: int,
        vocab_size: int | None = None,
        dtype: str = "float32",
        memory_budget_gb: float | int | None = None,
        share: tuple[int, int] = (0, 1),
        lexical_form: str | None = None,
    ):
        if mode not in MODES:
            raise InputError("mode", f"unknown {mode!r}", f"Choose one of {', '.join(MODES)}.")
        if not 1 <= k <= len(corpus):
            raise InputError("k", f"{k} results of a corpus of {len(corpus)} documents", f"Give 1 to {len(corpus)}.")
        if lexical_form not in (None, *LEXICAL_FORMS):
            problem = f"unknown {lexical_form!r}"
            raise InputError("lexical_form", problem, f"Choose one of {', '.join(LEXICAL_FORMS)}.")
        corpus.needed(MODES[mode].arrays[0])
        self.mode, self.k = mode, k
        self._corpus, self._mesh, self._share, self._vocab_size = corpus, mesh, share, vocab_size or 0
        self._dtype, self._budget = compute_dtype(dtype), memory_budget_gb
        platform = mesh.devices.flat[0].platform
        corpus_bytes = corpus.nbytes(MODES[mode].arrays)
        streamed = memory_budget_gb is not None and not fits(memory_budget_gb, corpus_bytes)
        self._searched: Callable[..., tuple[np.ndarray, np.ndarray]] = self._on_devices
        if mode == "lexical" and (lexical_form or LEXICAL_FORMS[platform != "cpu"]) == "by_vocabulary":
            budget = memory_budget_gb if streamed else None
            self._searched = VocabularySearch(corpus, k, self._vocab_size, self._dtype, budget, share)
            return
        self._programs = programs(MODES[mode].score, k, mesh)
        self._sizes = SIZES.get(platform, SIZES["gpu"])
        # A lane is a thread that takes a block, cuts it, moves it and has it scored: one for each core, since the
        # products are too small to divide, and one more where the corpus is read.
        one_cpu = mesh.size == 1 and platform == "cpu"
        self._lanes = (len(os.sched_getaffinity(0)) if one_cpu else 1) + streamed
        self._compiling, self._compiled = threading.Lock(), set[Any]()
        self._held = None if streamed else [made() for made in self._groups(None)]
        more = workspace(k, self._sizes.documents, corpus.itemsize(MODES[mode].arrays[0]), self._lanes)
        roomy = memory_budget_gb is None or fits(memory_budget_gb, corpus_bytes + more)
        if mode == "dense" and one_cpu and self._dtype == np.float32 and self._held and roomy and pays(k, len(corpus)):
            self._searched = ReducedSearch(self._held, k, self._lanes, self._on_devices)

    def __call__(
        self, queries: Vectors, progress: Callable[[int], None] | None = None
    ) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
        """Scores and positions of the best k documents for each query, best first; ties by ascending position.

        Args:
          queries: their vectors.
          progress: hears how many more documents are scored, in the end all of them.

        Raises:
          InputError: the memory budget is too small.
        """
        found = self._searched(queries, _Scored(progress, len(queries)))
        return best_of_processes(*found) if self._share[1] > 1 else found

    def _on_devices(self, queries: Vectors, scored: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray]:
        """What a call returns, of this process's share."""
        scores, positions = [np.zeros((0, self.k), np.float32)], [np.zeros((0, self.k), np.int32)]
        for batches, counts in query_batches(self.mode, queries, self._vocab_size):
            placed = jax.device_put(_cast(batches, self._dtype), NamedSharding(self._mesh, WHOLE))
            for best, count in zip(self._scanned(placed, partial(scored, sum(counts))), counts, strict=True):
                scores.append(np.asarray(best.scores)[:count])
                positions.append(np.asarray(best.positions)[:count])
        return np.concatenate(scores), np.concatenate(positions)

    def _scanned(self, batches: list[Any], scored: Callable[[int], None]) -> Iterator[TopK]:
        """The best k for each batch of queries, after one walk through the corpus."""
        groups: Iterator[Callable[[], Group]]
        if self._held is None:
            groups = self._groups(self._part_bytes(batches))
        else:
            groups = (partial(Group, *held) for held in self._held)

        def lane(groups: Iterator[Group]) -> list[TopK]:
            best = [self._programs.empty(self._rows(batch)) for batch in batches]
            for group in groups:
                best = [self._step(*each, group) for each in zip(best, batches, strict=True)]
                jax.block_until_ready(best)
                scored(int(np.count_nonzero(np.asarray(group.positions) != EMPTY)))
            return best

        lanes = in_lanes(self._lanes, groups, lane)
        yield from (self._programs.finish(list(parts)) for parts in zip(*lanes, strict=True))

    def _rows(self, batch: Any) -> int:
        """How many queries a batch has room for."""
        return jax.tree.leaves(batch)[0].shape[1 if self.mode == "lexical" else 0]

    def _step(self, best: TopK, queries: Any, group: Group) -> TopK:
        """One group scored for one batch; lanes that meet a new shape at once compile it once."""
        shapes = tuple(x.shape for x in jax.tree.leaves((queries, group)))
        if shapes in self._compiled:
            return self._programs.step(best, queries, *group)
        with self._compiling:
            best = self._programs.step(best, queries, *group)
            self._compiled.add(shapes)
        return best

    def _groups(self, limit: int | None) -> Iterator[Callable[[], Group]]:
        """Blocks for all devices at a time, each cut and placed on them when it is asked for."""
        mode, spread = MODES[self.mode], NamedSharding(self._mesh, SPREAD)

        def placed(made: Callable[[], Group]) -> Group:
            return jax.device_put(made(), spread)

        for first, part in self._corpus.parts(mode.arrays, limit, self._share):
            for made in mode.groups(part, first, self._mesh.size, self._sizes):
                yield partial(placed, made)

    def _part_bytes(self, batches: list[Any]) -> int:
        """How much of a corpus may be read at a time."""
        queries = sum(x.nbytes for x in jax.tree.leaves(batches))
        rows = sum(map(self._rows, batches))
        results = 8 * self.k * rows * (self._mesh.size * self._lanes + 2)
        width = self._corpus.itemsize(MODES[self.mode].arrays[0])
        block = max(self._sizes.documents, 2 * self._sizes.tiles * self._sizes.tile_tokens) * width
        return part_bytes(self._budget or 0, queries + results + 2 * self._lanes * self._mesh.size * block)


class _Scored:
    """Tells of documents scored: each counts as the share of the queries that it was scored for."""

    def __init__(self, progress: Callable[[int], None] | None, queries: int):
        self._progress, self._queries, self._pairs, self._told = progress, queries, 0, 0
        self._telling = threading.Lock()

    def __call__(self, queries: int, documents: int) -> None:
        """So many more documents are scored for so many queries, says one lane."""
        with self._telling:
            self._pairs += queries * documents
            more = self._pairs // self._queries - self._told
            self._told += more
            if self._progress:
                self._progress(more)


def _cast(batches: list[Any], dtype: jnp.dtype) -> list[Any]:
    """Query vectors in the dtype of the products."""
    return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == np.float32 else x, batches)
