"""A corpus goes over the devices in blocks, each scored while the next is read, with a running top-k."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from jaxret.ops.topk import EMPTY, TopK, empty_top_k, merged, with_block
from jaxret.runtime.mesh import AXES
from jaxret.search.blocks import MODES, Group
from jaxret.search.budget import part_bytes
from jaxret.search.device_memory import block_sizes, check_devices, fits_devices, placed_bytes
from jaxret.search.lanes import CompiledOnce, in_lanes
from jaxret.search.query_batches import query_batches
from jaxret.search.store import StoredVectors
from jaxret.search.vectors import Vectors

SPREAD, WHOLE = PartitionSpec(AXES), PartitionSpec()
RESULT_BYTES = 8  # a score and a position


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


class DeviceSearch:
    """The search in one dtype; arguments as `ExactSearch`.

    Args:
      budget_gb: None keeps the corpus in memory; otherwise each call reads it in parts that fit.
      keep: how a block is kept: what gives it again. None keeps it on the devices.

    Attributes:
      held: the blocks that are kept, ascending; None where each call reads them.
      lanes: threads, each of which takes a block, cuts it, moves it and has it scored.

    Raises:
      InputError: the corpus, or when called the queries and what is done with them, is more than the devices have left.
    """

    def __init__(
        self,
        mode: str,
        corpus: Vectors | StoredVectors,
        mesh: Mesh,
        k: int,
        dtype: jnp.dtype,
        vocab_size: int = 0,
        budget_gb: float | int | None = None,
        share: tuple[int, int] = (0, 1),
        keep: Callable[[Group], Callable[[], Group]] | None = None,
    ):
        self.mode, self.k, self.mesh, self.sizes = mode, k, mesh, block_sizes(mesh)
        self._corpus, self._dtype, self._vocab_size = corpus, dtype, vocab_size
        self._budget, self._share = budget_gb, share
        self._programs, self._step = self._compiled()
        streamed = budget_gb is not None
        self.lanes = lanes(mesh) + streamed
        if not (streamed or fits_devices(mode, corpus, mesh, share)):
            fix = "Give memory_budget_gb, so that it is streamed."
            check_devices(mesh, placed_bytes(mode, corpus, mesh, share), f"the corpus ({mode})", fix)
        keep = keep or (lambda group: partial(Group, *self._placed(group)))
        self.held = None if streamed else [keep(made()) for made in self._groups(None)]

    def variant(self, k: int, dtype: jnp.dtype) -> DeviceSearch:
        """A search of the same blocks for more or fewer results, in another dtype."""
        other = copy.copy(self)
        other.k, other._dtype = k, dtype
        other._programs, other._step = other._compiled()
        return other

    def _compiled(self) -> tuple[Programs, CompiledOnce[TopK]]:
        made = programs(MODES[self.mode].score, self.k, self.mesh)
        return made, CompiledOnce(made.step)

    def __call__(self, queries: Vectors, scored: Callable[[int, int], None]) -> tuple[np.ndarray, np.ndarray]:
        """Scores and positions of the best k documents for each query, of this process's share.

        Args:
          queries: their vectors.
          scored: hears of how many queries and documents more.
        """
        scores, positions = (np.empty((len(queries), self.k), dtype) for dtype in (np.float32, np.int32))
        for batches, chosen in query_batches(self.mode, queries, self._vocab_size, self.sizes.queries):
            self._check_devices(batches, queries)
            placed = jax.device_put(_cast(batches, self._dtype), NamedSharding(self.mesh, WHOLE))
            found = self._scanned(placed, partial(scored, sum(map(len, chosen))))
            for best, rows in zip(found, chosen, strict=True):
                scores[rows] = np.asarray(best.scores)[: len(rows)]
                positions[rows] = np.asarray(best.positions)[: len(rows)]
        return scores, positions

    def _scanned(self, batches: list[Any], scored: Callable[[int], None]) -> Iterator[TopK]:
        """The best k for each batch of queries, after one walk through the corpus."""
        groups = self._groups(self._part_bytes(batches)) if self.held is None else iter(self.held)

        def lane(groups: Iterator[Group]) -> list[TopK]:
            best = [self._programs.empty(self._rows(batch)) for batch in batches]
            for group in map(self._placed, groups):
                best = [self._step(*each, *group) for each in zip(best, batches, strict=True)]
                jax.block_until_ready(best)
                scored(int(np.count_nonzero(np.asarray(group.positions) != EMPTY)))
            return best

        found = in_lanes(self.lanes, groups, lane)
        yield from (self._programs.finish(list(parts)) for parts in zip(*found, strict=True))

    def _rows(self, batch: Any) -> int:
        """How many queries a batch has room for."""
        return jax.tree.leaves(batch)[0].shape[1 if self.mode == "lexical" else 0]

    def _groups(self, limit: int | None) -> Iterator[Callable[[], Group]]:
        """Blocks for all devices at a time, each cut when it is asked for."""
        mode = MODES[self.mode]
        for first, part in self._corpus.parts(mode.arrays, limit, self._share):
            yield from mode.groups(part, first, self.mesh.size, self.sizes)

    def _placed(self, group: Group) -> Group:
        return jax.device_put(group, NamedSharding(self.mesh, SPREAD))

    def _check_devices(self, batches: list[Any], queries: Vectors) -> None:
        """Raises InputError where a device has no room for queries, results, the blocks under way and a product."""
        asked = sum(x.nbytes for x in jax.tree.leaves(batches))
        results = RESULT_BYTES * self.k * sum(map(self._rows, batches)) * (self.lanes + 2)
        under_way = 2 * self.lanes * self._block_bytes() if self.held is None else 0
        columns = self.sizes.documents
        if self.mode == "multi_vector":
            columns = 2 * self.sizes.tile_tokens * max(batch.mask.shape[1] for batch in batches)
        product = 4 * columns * max(map(self._rows, batches))
        needed = asked + results + under_way + product
        fix = "Ask fewer queries at a time, or give a smaller k."
        check_devices(self.mesh, needed, f"a search of {len(queries)} queries", fix)

    def _part_bytes(self, batches: list[Any]) -> int:
        """How much of a corpus may be read at a time."""
        queries = sum(x.nbytes for x in jax.tree.leaves(batches))
        rows = sum(map(self._rows, batches))
        results = RESULT_BYTES * self.k * rows * (self.mesh.size * self.lanes + 2)
        under_way = 2 * self.lanes * self.mesh.size * self._block_bytes()
        return part_bytes(self._budget or 0, queries + results + under_way)

    def _block_bytes(self) -> int:
        """Of one device's block, about."""
        rows = self.sizes.documents
        if self.mode != "dense":
            rows = max(rows, 2 * self.sizes.tiles * self.sizes.tile_tokens)
        return rows * self._corpus.itemsize(MODES[self.mode].arrays[0])


def is_one_cpu(mesh: Mesh) -> bool:
    """Whether there is one device, a CPU."""
    return mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"


def lanes(mesh: Mesh) -> int:
    """Threads that have blocks scored: one for each core of one CPU, since the products are too small to divide."""
    return len(os.sched_getaffinity(0)) if is_one_cpu(mesh) else 1


def _cast(batches: list[Any], dtype: jnp.dtype) -> list[Any]:
    """Query vectors in the dtype of the products."""
    return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == np.float32 else x, batches)
