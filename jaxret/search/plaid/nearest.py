"""The nearest centroid of many vectors: exactly among few centroids, through groups of them among many."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int32

from jaxret.ops.centroid_groups import nearest_groups, nearest_members
from jaxret.ops.residuals import nearest_centroid

MOST_EXACT = 1 << 14  # centroids; more of them are looked for through groups
PROBED = 4  # groups of a vector
ROWS = 128  # vectors of a tile
BLOCK = 1 << 16  # vectors at a time
BLOCK_PRODUCTS = 1 << 24  # of vectors and centroids at a time: 64 MiB of them


class Nearest:
    """Finds the centroid that has the largest dot product with a vector.

    Of more than `MOST_EXACT` centroids it compares those of the four groups with the nearest means, so that it is not
    always the nearest of all that it finds.
    """

    def __init__(self, centroids: Float32[np.ndarray, "c k"]):
        self._groups = Groups.of(centroids) if len(centroids) > MOST_EXACT else None
        self._centroids = jnp.asarray(centroids)

    def __call__(self, vectors: Float[np.ndarray, "n k"]) -> Int32[np.ndarray, " n"]:
        """The number of each vector's centroid."""
        size = BLOCK
        if self._groups is None:
            most = 1 << (len(vectors) - 1).bit_length()
            size = max(64, min(BLOCK_PRODUCTS // len(self._centroids), most))
        codes = np.zeros(len(vectors), np.int32)

        def fill(start: int) -> None:
            block = np.asarray(vectors[start : start + size], np.float32)
            padded = jnp.asarray(np.pad(block, ((0, size - len(block)), (0, 0))))
            found = self._groups.nearest(padded) if self._groups else np.asarray(_exactly(padded, self._centroids))
            codes[start : start + size] = found[: len(block)]

        # One product with all centroids takes all cores; the steps through groups are too small to divide.
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if self._groups else 1) as pool:
            list(pool.map(fill, range(0, len(vectors), size)))
        return codes


@dataclass(frozen=True)
class Groups:
    """Centroids in groups of equal size, which lie near each other.

    Attributes:
      means: of the groups.
      members: centroids of each group; a group that is short of one has its first again.
      numbers: of the members among all centroids.
    """

    means: jax.Array
    members: jax.Array
    numbers: Int32[np.ndarray, "g m"]

    @classmethod
    def of(cls, centroids: Float32[np.ndarray, "c k"]) -> Groups:
        """Halves the centroids, and the halves, until there are about as many groups as centroids in each."""
        parts = [np.arange(len(centroids), dtype=np.int32)]
        for _ in range(math.ceil(math.log2(len(centroids)) / 2)):
            parts = [half for part in parts for half in _halves(centroids, part)]
        size = max(map(len, parts))
        numbers = np.stack([np.pad(part, (0, size - len(part)), constant_values=part[0]) for part in parts])
        means = np.stack([centroids[part].mean(axis=0) for part in parts])
        return cls(jnp.asarray(means), jnp.asarray(centroids[numbers]), numbers)

    def nearest(self, vectors: jax.Array) -> Int32[np.ndarray, " n"]:
        """The nearest member of each vector's nearest groups."""
        probed = np.asarray(_probed(vectors, self.means, PROBED))
        order = np.argsort(probed.reshape(-1).astype(np.uint16), kind="stable")  # of 16 bits by radix
        rows, group, places = _tiles(probed, order, len(self.means))
        found = jax.device_get(_in_tiles(vectors, rows, group, self.members))
        scores, member = (part.reshape(-1)[places] for part in found)
        best, numbers = np.empty(probed.size, np.float32), np.empty(probed.size, np.int32)
        best[order], numbers[order] = scores, self.numbers[probed.reshape(-1)[order], member]
        chosen = np.argmax(best.reshape(probed.shape), axis=1)
        return numbers.reshape(probed.shape)[np.arange(len(probed)), chosen]


def _halves(centroids: Float32[np.ndarray, "c k"], part: Int32[np.ndarray, " p"]) -> list[np.ndarray]:
    """Two halves of some centroids, cut at the median of the direction in which they differ most."""
    around = centroids[part] - centroids[part].mean(axis=0)
    along = around @ np.linalg.eigh(around.T @ around)[1][:, -1]
    order = part[np.argsort(along, kind="stable")]
    return [order[: len(part) // 2], order[len(part) // 2 :]]


def _tiles(
    probed: Int32[np.ndarray, "n p"], order: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of vectors in tiles of one group each, `[t ROWS]`, the tiles' groups, and the place of each of `order`.

    The number of tiles depends on that of the vectors alone.
    """
    sizes = np.bincount(probed.reshape(-1), minlength=groups)
    tiles = -(-sizes // ROWS)
    starts = (np.cumsum(tiles) - tiles) * ROWS - (np.cumsum(sizes) - sizes)
    places = np.arange(len(order)) + np.repeat(starts, sizes)
    count = len(order) // ROWS + groups
    rows = np.zeros(count * ROWS, np.int32)
    rows[places] = order // probed.shape[1]
    group = np.repeat(np.arange(groups, dtype=np.int32), tiles)
    return rows.reshape(count, ROWS), np.pad(group, (0, count - len(group))), places


_exactly = jax.jit(nearest_centroid)
_probed = jax.jit(nearest_groups, static_argnums=2)
_in_tiles = jax.jit(nearest_members)
