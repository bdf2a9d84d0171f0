"""The codec of an index: how it is learnt from a sample, and how it compresses (ColBERTv2, section 3.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from jaxret.errors import InputError
from jaxret.ops.kmeans import kmeans_step
from jaxret.ops.residuals import BITS, decompressed, packed_residuals, plane_order
from jaxret.search.plaid.nearest import BLOCK, BLOCK_PRODUCTS, MOST_EXACT, Nearest

HELD_OUT, MOST_HELD_OUT = 0.05, 50_000
POINTS_PER_CENTROID = 256
PACKED_BLOCK = 1 << 14  # vectors at a time


@dataclass(frozen=True)
class Codec:
    """Centroids, and buckets of the residuals' values.

    Attributes:
      centroids: unit vectors, of float16 precision as they are stored.
      cutoffs: between the buckets.
      weights: what a value of each bucket is decompressed to.
      avg_residual: the mean size of a residual's value, a measure of the centroids' quality.
    """

    centroids: Float32[np.ndarray, "c k"]
    cutoffs: Float32[np.ndarray, " m"]
    weights: Float32[np.ndarray, " w"]
    avg_residual: float

    @property
    def nbits(self) -> int:
        """Bits of each value of a residual."""
        return len(self.weights).bit_length() - 1

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        return self.centroids.shape[1]

    @property
    def packed_width(self) -> int:
        """Bytes of a packed residual."""
        return self.width * self.nbits // 8

    @cached_property
    def _nearest(self) -> Nearest:
        return Nearest(self.centroids)

    def compressed(self, vectors: Float[np.ndarray, "n k"]) -> tuple[Int[np.ndarray, " n"], UInt8[np.ndarray, "n p"]]:
        """The number of each vector's centroid, int32, and its packed residual."""
        codes = self._nearest(vectors)
        size = min(PACKED_BLOCK, max(64, 1 << (len(vectors) - 1).bit_length()))
        residuals, cutoffs = np.zeros((len(vectors), self.packed_width), np.uint8), jnp.asarray(self.cutoffs)
        for start in range(0, len(vectors), size):
            block = np.asarray(vectors[start : start + size], np.float32)
            block = block - self.centroids[codes[start : start + size]]
            padded = jnp.asarray(np.pad(block, ((0, size - len(block)), (0, 0))))
            residuals[start : start + size] = np.asarray(_packed(padded, cutoffs))[: len(block)]
        return codes, residuals

    def decompressed(
        self, codes: Int[np.ndarray, " n"], residuals: UInt8[np.ndarray, "n p"]
    ) -> Float32[np.ndarray, "n k"]:
        """The unit vectors that compressed ones stand for."""
        centroids = plane_order(jnp.asarray(self.centroids), self.nbits)
        planes = decompressed(centroids[np.asarray(codes)], jnp.asarray(residuals), jnp.asarray(self.weights))
        split = np.asarray(planes).reshape(len(codes), 8 // self.nbits, -1)
        return np.swapaxes(split, 1, 2).reshape(len(codes), self.width)


def published_number_of_centroids(num_vectors: int | float) -> int:
    """The power of two below 16 times the square root of the number of vectors to be indexed."""
    return int(2 ** math.floor(math.log2(16 * math.sqrt(max(num_vectors, 1)))))


def trained_codec(
    sample: Float[np.ndarray, "n k"],
    *,
    nbits: int,
    num_centroids: int,
    kmeans_niters: int = 4,
    points_per_centroid: int = POINTS_PER_CENTROID,
    seed: int = 0,
) -> Codec:
    """Learns centroids from a sample of unit vectors and the buckets from a part of it that is held out.

    The cutoffs are the quantiles `i / 2**nbits` of the held-out residuals' values, the weights those half a step on.

    Args:
      sample: in an order that does not matter: it is shuffled.
      nbits: 1, 2 or 4.
      num_centroids: no more are made than there are vectors to learn them from.
      kmeans_niters: passes of k-means.
      points_per_centroid: the most vectors that it learns from.
      seed: of the shuffle, whose first vectors are the first centroids.

    Raises:
      InputError: no vectors, or a number of bits or a width that cannot be packed.
    """
    check_packing(sample.shape[1], nbits)
    if not len(sample):
        raise InputError("documents", "no token vectors to learn from", "Index documents that have tokens.")
    order = np.random.default_rng(seed).permutation(len(sample))
    held_out = sample[order[: min(int(HELD_OUT * len(sample)), MOST_HELD_OUT)]]
    training = order[len(held_out) :][: points_per_centroid * num_centroids]
    training = np.asarray(sample[training], np.float32)
    centroids = _trained_centroids(training, min(num_centroids, len(training)), kmeans_niters)
    values = np.asarray(held_out if len(held_out) else training, np.float32)
    return _codec_of(centroids.astype(np.float16).astype(np.float32), values, nbits)


def check_packing(width: int, nbits: int) -> None:
    """Raises InputError where residuals of such vectors do not fill whole bytes."""
    if nbits not in BITS:
        raise InputError("nbits", f"{nbits}", f"Choose one of {', '.join(map(str, BITS))}.")
    if width % 8:
        problem = f"token vectors of {width} dimensions, no multiple of 8"
        raise InputError("documents", problem, "Use a model with another width of its token vectors.")


def _trained_centroids(vectors: Float32[np.ndarray, "n k"], count: int, niters: int) -> Float32[np.ndarray, "c k"]:
    """Centroids of unit vectors that were shuffled, from the first ones of them."""
    if count > MOST_EXACT:
        return _trained_in_groups(vectors, count, niters)
    size = min(len(vectors), max(64, BLOCK_PRODUCTS // count))
    padding = -len(vectors) % size
    blocks = jnp.asarray(np.pad(vectors, ((0, padding), (0, 0))).reshape(-1, size, vectors.shape[1]))
    used = jnp.asarray((np.arange(len(vectors) + padding) < len(vectors)).reshape(-1, size))
    centroids, step = jnp.asarray(vectors[:count]), jax.jit(kmeans_step)
    for _ in range(niters):
        centroids = step(blocks, used, centroids)
    return np.asarray(centroids)


def _trained_in_groups(vectors: Float32[np.ndarray, "n k"], count: int, niters: int) -> Float32[np.ndarray, "c k"]:
    """The same for so many centroids that a vector's is looked for in groups of them."""
    centroids = vectors[:count]
    for _ in range(niters):
        codes, sums = Nearest(centroids)(vectors), np.zeros_like(centroids)
        for start in range(0, len(vectors), BLOCK):
            own = codes[start : start + BLOCK]
            order = np.argsort(own, kind="stable")
            numbers, first = np.unique(own[order], return_index=True)
            sums[numbers] += np.add.reduceat(vectors[start : start + BLOCK][order], first)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids = np.where(lengths < 1e-6, centroids, sums / np.maximum(lengths, 1e-6))
    return centroids


_packed = jax.jit(packed_residuals)


def _codec_of(centroids: Float32[np.ndarray, "c k"], held_out: Float32[np.ndarray, "n k"], nbits: int) -> Codec:
    """The codec with buckets for the residuals of some vectors."""
    plain = Codec(centroids, np.zeros(1, np.float32), np.zeros(2, np.float32), 0.0)
    codes, _ = plain.compressed(held_out)
    residuals = held_out - centroids[codes]
    steps = np.arange(2**nbits) / 2**nbits
    cutoffs = np.quantile(residuals, steps[1:]).astype(np.float32)
    weights = np.quantile(residuals, steps + 0.5 / 2**nbits).astype(np.float32)
    return Codec(centroids, cutoffs, weights, float(np.abs(residuals).mean(dtype=np.float64)))
