"""Builds an index from stored vectors, in two passes: a sample for the codec, then shard after shard."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from jaxret.errors import InputError
from jaxret.files import atomic_folder, read_json, write_json
from jaxret.runtime import checksums
from jaxret.search.dtypes import decoded
from jaxret.search.plaid.codec import (
    HELD_OUT,
    POINTS_PER_CENTROID,
    Codec,
    check_packing,
    published_number_of_centroids,
    trained_codec,
)
from jaxret.search.plaid.files import (
    AVG_RESIDUAL,
    Chunk,
    chunk_numbers,
    link,
    read_chunk,
    read_codec,
    read_lengths,
    write_chunk,
    write_codec,
    write_facts,
    write_lists,
)
from jaxret.search.plaid.index import inverted_lists
from jaxret.search.plaid.pooling import pooled
from jaxret.search.vectors import Ragged, Vectors

FORMAT = 1
BEGUN = "begun.json"
TYPICAL_LENGTH = 120  # tokens of a document, in the published size of the sample
LENGTH_TOLERANCE = 0.02  # of unit vectors that were kept in bfloat16


@runtime_checkable
class Stored(Protocol):
    """Vectors of a corpus in shards, as `jaxret.search.store.StoredVectors` has them."""

    starts: np.ndarray

    def shard(self, number: int) -> Vectors:
        """One shard."""


@dataclass(frozen=True)
class PlaidSettings:
    """How an index is built.

    Attributes:
      nbits: of each value of a residual: 1, 2 or 4.
      pool_factor: how many times fewer vectors a document keeps; 1 keeps all.
      protected_tokens: the first so many of a document are not pooled.
      num_centroids: the published number by default; never more than vectors in the sample.
      kmeans_niters: passes of k-means.
      points_per_centroid: the most vectors that k-means learns from; with `num_centroids` it limits the sample, which
        is in memory.
      seed: of the sample and of k-means.
    """

    nbits: int = 2
    pool_factor: int = 1
    protected_tokens: int = 0
    num_centroids: int | None = None
    kmeans_niters: int = 4
    points_per_centroid: int = POINTS_PER_CENTROID
    seed: int = 0


def build_plaid(
    stored: Stored,
    folder: str | Path,
    settings: PlaidSettings | None = None,
    *,
    source: str = "",
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes the index of a corpus, whole or not at all; one that was there before stays until then.

    A build that was cut short goes on where it was, with the same result. Memory holds the sample, then one shard,
    then the inverted lists.

    Args:
      stored: the corpus; its token vectors have length one.
      folder: of the index.
      settings: by default those of `PlaidSettings`.
      source: what tells this corpus from another one, such as its manifest's checksum.
      progress: is called with the number of documents of each shard that is done.

    Raises:
      InputError: settings out of range, or vectors that are not of length one.
    """
    folder, settings = Path(folder), settings or PlaidSettings()
    if settings.points_per_centroid < 1:
        raise InputError("points_per_centroid", f"{settings.points_per_centroid}", "Give 1 or more.")
    if settings.num_centroids is not None and settings.num_centroids < 1:
        raise InputError(
            "num_centroids", f"{settings.num_centroids}", "Give 1 or more, or none for the published number."
        )
    begun = _begun(folder, stored, settings, source)
    if not (begun / AVG_RESIDUAL).exists():
        write_codec(begun, _codec_for(stored, settings))
    codec = read_codec(begun)
    done = set(chunk_numbers(begun))
    lengths: list[Int[np.ndarray, " _"]] = []
    for number in range(len(stored.starts) - 1):
        if number not in done:
            documents, tokens = sum(map(len, lengths)), sum(int(part.sum()) for part in lengths)
            vectors = tokens_of(decoded(stored.shard(number)), settings)
            write_chunk(begun, number, compressed_chunk(codec, vectors), (documents, tokens))
        lengths.append(read_lengths(begun, number))
        if progress:
            progress(len(lengths[-1]))
    write_facts(
        begun, codec, lengths, {"format": FORMAT, "settings": asdict(settings), "source": source, "deleted": []}
    )
    write_all_lists(begun, codec, len(lengths))
    with atomic_folder(folder) as whole:
        for path in begun.iterdir():
            if path.name != BEGUN:
                link(path, whole / path.name)
        checksums.seal(whole)
    (begun / BEGUN).unlink()  # without it nothing goes on with what is left, should this be cut short
    shutil.rmtree(begun)


def tokens_of(vectors: Vectors, settings: PlaidSettings) -> Ragged:
    """The token vectors of some documents as an index keeps them: pooled, of length one.

    Raises:
      InputError: the model made no token vectors, or such as are not of length one.
    """
    tokens = vectors.needed("tokens")
    check_packing(tokens.values.shape[1], settings.nbits)
    lengths = np.linalg.norm(tokens.values, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))  # NaN too
    if len(wrong):
        problem = f"a token vector of length {lengths[wrong[0]]:.3f}, but compressed vectors are of length 1"
        raise InputError("documents", problem, "Use a model that normalises its token vectors.")
    return pooled(tokens, settings.pool_factor, settings.protected_tokens)


def compressed_chunk(codec: Codec, tokens: Ragged) -> Chunk:
    """Some documents' vectors, compressed."""
    if tokens.values.shape[1] != codec.width:
        problem = f"token vectors of {tokens.values.shape[1]} dimensions, and the index has {codec.width}"
        raise InputError("documents", problem, "Use the model that the index was built with.")
    return Chunk(*codec.compressed(tokens.values), tokens.lengths.astype(np.int64))


def write_all_lists(folder: Path, codec: Codec, num_chunks: int) -> None:
    """Writes the inverted lists of all chunks of an index."""

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        first = 0
        for number in range(num_chunks):
            chunk = read_chunk(folder, number, codec)
            yield chunk.codes, np.repeat(np.arange(first, first + len(chunk.lengths)), chunk.lengths)
            first += len(chunk.lengths)

    write_lists(folder, *inverted_lists(parts(), len(codec.centroids)))


def _begun(folder: Path, stored: Stored, settings: PlaidSettings, source: str) -> Path:
    """The folder of a build under way: an unfinished one of the same corpus and settings, or a new one."""
    begun = folder.with_name(f".{folder.name}.building")
    starts = hashlib.sha256(np.asarray(stored.starts, np.int64).tobytes()).hexdigest()
    facts = {"format": FORMAT, "settings": asdict(settings), "source": source, "starts": starts}
    if begun.exists() and ((begun / BEGUN).exists() is False or read_json(begun / BEGUN) != facts):
        shutil.rmtree(begun)
    begun.mkdir(parents=True, exist_ok=True)
    for path in begun.glob(".*"):
        os.unlink(path)  # a file that was being written
    if not (begun / BEGUN).exists():
        write_json(begun / BEGUN, facts)
    return begun


def _codec_for(stored: Stored, settings: PlaidSettings) -> Codec:
    """The codec that a sample of the corpus gives."""
    count = int(stored.starts[-1])
    random = np.random.default_rng(settings.seed)
    documents = 1 + int(16 * math.sqrt(TYPICAL_LENGTH * count))
    if settings.num_centroids and count:
        documents = min(documents, _documents_for(settings.num_centroids, stored, settings))
    sample = _sampled(stored, rows := np.sort(random.permutation(count)[:documents]), settings)
    wanted = settings.num_centroids or published_number_of_centroids(count * len(sample.values) / max(len(rows), 1))
    most = _wanted_vectors(wanted, settings)
    vectors = sample.values
    if len(vectors) > most:
        vectors = vectors[np.sort(random.permutation(len(vectors))[:most])]
    return trained_codec(
        vectors,
        nbits=settings.nbits,
        num_centroids=wanted,
        kmeans_niters=settings.kmeans_niters,
        points_per_centroid=settings.points_per_centroid,
        seed=settings.seed,
    )


def _wanted_vectors(num_centroids: int, settings: PlaidSettings) -> int:
    """How many vectors k-means learns so many centroids from, with those held out."""
    return math.ceil(num_centroids * settings.points_per_centroid / (1 - HELD_OUT))


def _documents_for(num_centroids: int, stored: Stored, settings: PlaidSettings) -> int:
    """About as many documents as have the vectors that so many centroids want, by the first shard's mean length."""
    lengths = stored.shard(0).needed("tokens").lengths
    return math.ceil(1.1 * _wanted_vectors(num_centroids, settings) * settings.pool_factor / max(lengths.mean(), 1))


def _sampled(stored: Stored, rows: Int[np.ndarray, " n"], settings: PlaidSettings) -> Ragged:
    """The vectors of some documents in ascending order, read shard by shard."""
    numbers = np.searchsorted(stored.starts, rows, side="right") - 1
    parts = []
    for number in np.unique(numbers).tolist():
        tokens = decoded(stored.shard(number)).needed("tokens")
        own = rows[numbers == number] - int(stored.starts[number])
        chosen = tokens.chosen(own)
        parts.append(tokens_of(Vectors(tokens=chosen), settings))
    if not parts:
        raise InputError("documents", "none", "Index one at least.")
    return Ragged.joined(parts)
