"""The published files of a PLAID index, as Stanford's ColBERT writes and reads them.

An index that jaxret wrote has two files more: `plaid.json` with its settings, and `SHA256SUMS`.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from jaxret.errors import InputError
from jaxret.files import atomic, existing_folder, read_json, write_json
from jaxret.nn.convert.safe_pickle import listed_tensors
from jaxret.ops.residuals import BITS
from jaxret.runtime.checksums import SUMS, damaged
from jaxret.runtime.layouts.torch_file import write_torch_value
from jaxret.search.plaid.codec import Codec

OURS, PLAN, METADATA = "plaid.json", "plan.json", "metadata.json"
CENTROIDS, BUCKETS, AVG_RESIDUAL, LISTS = "centroids.pt", "buckets.pt", "avg_residual.pt", "ivf.pid.pt"
AGAIN = "Copy the index again, or build it again."


class Chunk(NamedTuple):
    """The documents of one part of an index.

    Attributes:
      codes: the centroid of each token, int32.
      residuals: its packed residual.
      lengths: the number of tokens of each document; 0 for one that was deleted.
    """

    codes: Int[np.ndarray, " n"]
    residuals: UInt8[np.ndarray, "n p"]
    lengths: Int[np.ndarray, " d"]


def write_codec(folder: Path, codec: Codec) -> None:
    """Writes centroids, buckets and the mean residual; the last of them tells that all are there."""
    write_torch_value(folder / CENTROIDS, codec.centroids.astype(np.float16))
    write_torch_value(folder / BUCKETS, (codec.cutoffs, codec.weights))
    write_torch_value(folder / AVG_RESIDUAL, np.asarray(codec.avg_residual, np.float32))


def read_codec(folder: Path) -> Codec:
    """The codec of an index; raises InputError where a file is missing, damaged or does not fit the others."""
    centroids = _tensors(folder / CENTROIDS, ((2, "f"),))[0].astype(np.float32)
    cutoffs, weights = (part.astype(np.float32) for part in _tensors(folder / BUCKETS, ((1, "f"), (1, "f"))))
    (average,) = _tensors(folder / AVG_RESIDUAL, ((None, "f"),))
    if len(weights) not in [2**bits for bits in BITS] or len(cutoffs) != len(weights) - 1:
        problem = f"{len(cutoffs)} cutoffs and {len(weights)} weights are no buckets of 1, 2 or 4 bits"
        raise InputError(folder / BUCKETS, problem, AGAIN)
    if not len(centroids) or centroids.shape[1] % 8:
        raise InputError(folder / CENTROIDS, f"centroids of the shape {centroids.shape}", AGAIN)
    return Codec(centroids, cutoffs, weights, float(average.astype(np.float32).mean()))


def write_chunk(folder: Path, number: int, chunk: Chunk, first: tuple[int, int]) -> None:
    """Writes one chunk; its metadata come last and tell that it is whole.

    Args:
      folder: of the index.
      number: of the chunk.
      chunk: what it holds.
      first: the number of documents and of tokens in the chunks before it.
    """
    write_torch_value(folder / f"{number}.codes.pt", chunk.codes.astype(np.int32))
    write_torch_value(folder / f"{number}.residuals.pt", chunk.residuals)
    _write_lengths(folder / f"doclens.{number}.json", chunk.lengths)
    facts = {"passage_offset": first[0], "num_passages": len(chunk.lengths), "num_embeddings": len(chunk.codes)}
    write_json(folder / f"{number}.metadata.json", {**facts, "embedding_offset": first[1]})


def read_chunk(folder: Path, number: int, codec: Codec) -> Chunk:
    """One chunk, memory-mapped; raises InputError where its files do not fit the codec or each other."""
    lengths = read_lengths(folder, number)
    (codes,) = _tensors(folder / f"{number}.codes.pt", ((1, "i"),))
    (residuals,) = _tensors(folder / f"{number}.residuals.pt", ((2, "u"),))
    total = int(lengths.sum())
    if len(codes) != total:
        problem = f"{len(codes)} codes, but doclens.{number}.json counts {total} tokens"
        raise InputError(folder / f"{number}.codes.pt", problem, AGAIN)
    if residuals.shape != (total, codec.packed_width):
        problem = f"residuals of the shape {residuals.shape}, not {(total, codec.packed_width)}"
        raise InputError(folder / f"{number}.residuals.pt", problem, AGAIN)
    if total and not 0 <= int(codes.min()) <= int(codes.max()) < len(codec.centroids):
        problem = f"codes from {codes.min()} to {codes.max()} of {len(codec.centroids)} centroids"
        raise InputError(folder / f"{number}.codes.pt", problem, AGAIN)
    return Chunk(codes, residuals, lengths)


def release(chunk: Chunk) -> None:
    """Gives back the memory of a mapped chunk's pages; whoever needs them again reads them from the file again."""
    for array in (chunk.codes, chunk.residuals):
        base: Any = array
        while base is not None and not isinstance(base, mmap.mmap):
            base = getattr(base, "base", None)
        if base is not None:
            base.madvise(mmap.MADV_DONTNEED)


def read_lengths(folder: Path, number: int) -> Int[np.ndarray, " d"]:
    """The number of tokens of each document of a chunk."""
    path = folder / f"doclens.{number}.json"
    lengths = read_json(path)
    if not isinstance(lengths, list) or not all(type(length) is int and length >= 0 for length in lengths):
        raise InputError(path, "no list of document lengths", AGAIN)
    return np.asarray(lengths, np.int64)


def write_lists(folder: Path, pids: Int[np.ndarray, " i"], lengths: Int[np.ndarray, " c"]) -> None:
    """Writes the inverted lists: documents by centroid, and zeros up to where the longest list could start last."""
    longest = int(lengths.max(initial=0))
    padding = longest if len(lengths) and len(pids) - int(lengths[-1]) + longest > len(pids) else 0
    values = np.concatenate([pids, np.zeros(padding, pids.dtype)]).astype(np.int32)
    write_torch_value(folder / LISTS, (values, lengths.astype(np.int64)))


def read_lists(folder: Path, num_centroids: int) -> tuple[Int[np.ndarray, " i"], Int[np.ndarray, " c"]]:
    """Documents by centroid and the length of each centroid's list."""
    pids, lengths = _tensors(folder / LISTS, ((1, "i"), (1, "i")))
    if len(lengths) != num_centroids or int(lengths.min(initial=0)) < 0 or int(lengths.sum()) > len(pids):
        problem = f"{len(lengths)} lists of {int(lengths.sum())} entries, for {num_centroids} centroids and {len(pids)}"
        raise InputError(folder / LISTS, problem, AGAIN)
    return pids[: int(lengths.sum())], lengths


def chunk_numbers(folder: Path) -> Iterator[int]:
    """The numbers of the chunks that are whole, ascending."""
    names = (re.fullmatch(r"(\d+)\.metadata\.json", path.name) for path in folder.iterdir())
    yield from sorted(int(name[1]) for name in names if name)


def write_facts(folder: Path, codec: Codec, chunks: list[Int[np.ndarray, " _"]], ours: dict[str, Any]) -> None:
    """Writes the plan and the metadata that the reference reads, and the settings and deletions that we do.

    Args:
      folder: of the index.
      codec: of it.
      chunks: the document lengths of each chunk.
      ours: content of `plaid.json`.
    """
    settings = ours.get("settings", {})
    config = {"dim": codec.width, "nbits": codec.nbits, "similarity": "cosine"}
    config |= {
        name: settings[name] for name in ("kmeans_niters", "pool_factor", "protected_tokens") if name in settings
    }
    documents = sum(len(lengths) for lengths in chunks)
    tokens = sum(int(lengths.sum()) for lengths in chunks)
    shared = {"config": config, "num_chunks": len(chunks), "num_partitions": len(codec.centroids)}
    average = tokens / max(documents, 1)
    write_json(folder / PLAN, {**shared, "num_embeddings_est": tokens, "avg_doclen_est": average})
    write_json(folder / METADATA, {**shared, "num_embeddings": tokens, "avg_doclen": average})
    write_json(folder / OURS, ours)


def read_facts(folder: Path, codec: Codec) -> tuple[int, dict[str, Any]]:
    """The number of chunks, and what `plaid.json` says ({} where the reference wrote the index).

    Raises:
      InputError: no index in the folder, or the metadata contradict the codec.
    """
    path = folder / METADATA
    metadata = read_json(path)
    try:
        chunks, dim, nbits = metadata["num_chunks"], metadata["config"]["dim"], metadata["config"]["nbits"]
    except (KeyError, TypeError) as error:
        raise InputError(path, f"lacks {error}", AGAIN) from None
    if (dim, nbits) != (codec.width, codec.nbits):
        problem = f"says dim {dim} and nbits {nbits}, but the codec has {codec.width} and {codec.nbits}"
        raise InputError(path, problem, AGAIN)
    if type(chunks) is not int or chunks < 0:
        raise InputError(path, f"num_chunks is {chunks!r}", AGAIN)
    ours = read_json(folder / OURS) if (folder / OURS).exists() else {}
    return chunks, ours


def check_folder(folder: str | Path) -> Path:
    """The folder of a complete index whose files are what was written; raises InputError with the first that is not."""
    folder = existing_folder(folder)
    if not (folder / METADATA).exists():
        fix = "Give the folder of a complete index; where a build was cut short, run the same command again."
        raise InputError(folder / METADATA, "no such file: no complete PLAID index", fix)
    if (folder / OURS).exists() and not (folder / SUMS).exists():
        raise InputError(folder / SUMS, "missing", AGAIN)
    if bad := damaged(folder):
        raise InputError(bad, "missing or damaged (its checksum differs)", AGAIN)
    return folder


def link(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, which is never written to again; a copy where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_lengths(path: Path, lengths: Int[np.ndarray, " d"]) -> None:
    with atomic(path) as file:
        file.write("[" + ",".join(map(str, lengths.tolist())) + "]")


def _tensors(path: Path, kinds: tuple[tuple[int | None, str], ...]) -> list[np.ndarray]:
    """The tensors of a file, checked: the number of axes of each (None for any) and the kind of its dtype."""
    if not path.is_file():
        raise InputError(path, "no such file", AGAIN)
    tensors = [tensor.read() for tensor in listed_tensors(path)]
    found = [(array.ndim, array.dtype.kind) for array in tensors]
    if len(found) != len(kinds) or any(
        has != kind or axes not in (None, ndim) for (ndim, has), (axes, kind) in zip(found, kinds, strict=True)
    ):
        shapes = ", ".join(f"{array.dtype.name} {array.shape}" for array in tensors)
        raise InputError(path, f"holds {shapes}, not what it should", AGAIN)
    return tensors
