"""The codec of an index: how it is learnt from a sample, and how it compresses (ColBERTv2, section 3.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8

from jaxret.errors import InputError
from jaxret.ops.kmeans import kmeans_step
from jaxret.ops.residuals import BITS, decompressed, nearest_centroid, packed_residuals, plane_order

HELD_OUT, MOST_HELD_OUT = 0.05, 50_000
POINTS_PER_CENTROID = 256
BLOCK_PRODUCTS = 1 << 24  # of vectors and centroids at a time: 64 MiB of them


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

    def compressed(self, vectors: Float[np.ndarray, "n k"]) -> tuple[Int[np.ndarray, " n"], UInt8[np.ndarray, "n p"]]:
        """The number of each vector's centroid, int32, and its packed residual."""
        size = max(64, min(BLOCK_PRODUCTS // len(self.centroids), 1 << (len(vectors) - 1).bit_length()))
        codes, residuals = np.zeros(len(vectors), np.int32), np.zeros((len(vectors), self.packed_width), np.uint8)
        centroids, cutoffs = jnp.asarray(self.centroids), jnp.asarray(self.cutoffs)
        for start in range(0, len(vectors), size):
            block = np.asarray(vectors[start : start + size], np.float32)
            padded = np.pad(block, ((0, size - len(block)), (0, 0)))
            found = _compressed(jnp.asarray(padded), centroids, cutoffs)
            codes[start : start + size] = np.asarray(found[0])[: len(block)]
            residuals[start : start + size] = np.asarray(found[1])[: len(block)]
        return codes, residuals

    def decompressed(
        self, codes: Int[np.ndarray, " n"], residuals: UInt8[np.ndarray, "n p"]
    ) -> Float32[np.ndarray, "n k"]:
        """The unit vectors that compressed ones stand for."""
        centroids = plane_order(jnp.asarray(self.centroids), self.nbits)
        planes = decompressed(centroids[np.asarray(codes)], jnp.asarray(residuals), jnp.asarray(self.weights))
        split = np.asarray(planes).reshape(len(codes), 8 // self.nbits, -1)
        return np.swapaxes(split, 1, 2).reshape(len(codes), self.width)


@jax.jit
def _compressed(
    vectors: Float[Array, "n k"], centroids: Float[Array, "c k"], cutoffs: Float[Array, " m"]
) -> tuple[Int[Array, " n"], UInt8[Array, "n p"]]:
    codes = nearest_centroid(vectors, centroids)
    return codes, packed_residuals(vectors - centroids[codes], cutoffs)


def published_number_of_centroids(num_vectors: int | float) -> int:
    """The power of two below 16 times the square root of the number of vectors to be indexed."""
    return int(2 ** math.floor(math.log2(16 * math.sqrt(max(num_vectors, 1)))))


def trained_codec(
    sample: Float[np.ndarray, "n k"], *, nbits: int, num_centroids: int, kmeans_niters: int = 4, seed: int = 0
) -> Codec:
    """Learns centroids from a sample of unit vectors and the buckets from a part of it that is held out.

    The cutoffs are the quantiles `i / 2**nbits` of the held-out residuals' values, the weights those half a step on.

    Args:
      sample: in an order that does not matter: it is shuffled.
      nbits: 1, 2 or 4.
      num_centroids: no more are made than there are vectors to learn them from.
      kmeans_niters: passes of k-means over at most 256 vectors a centroid.
      seed: of the shuffle, whose first vectors are the first centroids.

    Raises:
      InputError: no vectors, or a number of bits or a width that cannot be packed.
    """
    check_packing(sample.shape[1], nbits)
    if not len(sample):
        raise InputError("documents", "no token vectors to learn from", "Index documents that have tokens.")
    order = np.random.default_rng(seed).permutation(len(sample))
    held_out = sample[order[: min(int(HELD_OUT * len(sample)), MOST_HELD_OUT)]]
    training = order[len(held_out) :][: POINTS_PER_CENTROID * num_centroids]
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
    size = min(len(vectors), max(64, BLOCK_PRODUCTS // count))
    padding = -len(vectors) % size
    blocks = jnp.asarray(np.pad(vectors, ((0, padding), (0, 0))).reshape(-1, size, vectors.shape[1]))
    used = jnp.asarray((np.arange(len(vectors) + padding) < len(vectors)).reshape(-1, size))
    centroids, step = jnp.asarray(vectors[:count]), jax.jit(kmeans_step)
    for _ in range(niters):
        centroids = step(blocks, used, centroids)
    return np.asarray(centroids)


def _codec_of(centroids: Float32[np.ndarray, "c k"], held_out: Float32[np.ndarray, "n k"], nbits: int) -> Codec:
    """The codec with buckets for the residuals of some vectors."""
    plain = Codec(centroids, np.zeros(1, np.float32), np.zeros(2, np.float32), 0.0)
    codes, _ = plain.compressed(held_out)
    residuals = held_out - centroids[codes]
    steps = np.arange(2**nbits) / 2**nbits
    cutoffs = np.quantile(residuals, steps[1:]).astype(np.float32)
    weights = np.quantile(residuals, steps + 0.5 / 2**nbits).astype(np.float32)
    return Codec(centroids, cutoffs, weights, float(np.abs(residuals).mean(dtype=np.float64)))
