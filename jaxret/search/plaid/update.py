"""Documents added to an index and deleted from it, without building it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxret.errors import InputError
from jaxret.files import atomic_folder
from jaxret.runtime import checksums
from jaxret.search.plaid.build import FORMAT, PlaidSettings, compressed_chunk, tokens_of, write_all_lists
from jaxret.search.plaid.codec import Codec
from jaxret.search.plaid.files import (
    METADATA,
    OURS,
    PLAN,
    Chunk,
    check_folder,
    link,
    read_chunk,
    read_codec,
    read_facts,
    read_lengths,
    write_chunk,
    write_facts,
)
from jaxret.search.vectors import Vectors

REWRITTEN = (checksums.SUMS, METADATA, OURS, PLAN)


def add_documents(folder: str | Path, vectors: Vectors) -> Int[np.ndarray, " n"]:
    """Compresses more documents with the index's codec; their positions, which follow on those that are there.

    The centroids stay, so the codec fits worse the less the new documents are like those it was learnt from.

    Args:
      folder: of an index of jaxret's or of the reference's; it changes whole or not at all.
      vectors: the documents' token vectors, not pooled: they are pooled as the index was.

    Raises:
      InputError: a damaged index, vectors of another width or not of length one.
    """
    folder = check_folder(folder)
    codec, lengths, facts = _contents(folder)
    tokens = tokens_of(vectors, PlaidSettings(**facts["settings"]))
    chunk = compressed_chunk(codec, tokens)
    documents, before = sum(map(len, lengths)), sum(int(part.sum()) for part in lengths)
    with _changed(folder, codec, [*lengths, chunk.lengths], facts, {len(lengths)}) as changed:
        write_chunk(changed, len(lengths), chunk, (documents, before))
    return np.arange(documents, documents + len(chunk.lengths))


def delete_documents(folder: str | Path, positions: Iterable[int]) -> None:
    """Takes documents out of an index. The others keep their positions; those of the deleted stay empty.

    Args:
      folder: of an index of jaxret's or of the reference's; it changes whole or not at all.
      positions: of the documents.

    Raises:
      InputError: a damaged index, or a position that it does not have or that is deleted already.
    """
    folder = check_folder(folder)
    codec, lengths, facts = _contents(folder)
    starts = np.concatenate([[0], np.cumsum([len(part) for part in lengths])]).astype(np.int64)
    wanted = np.unique(np.asarray(list(positions), np.int64))
    outside, again = wanted[(wanted < 0) | (wanted >= starts[-1])], np.intersect1d(wanted, facts["deleted"])
    if len(outside) or len(again):
        problem = f"position {outside[0]}" if len(outside) else f"position {again[0]} is deleted already"
        raise InputError("positions", problem, f"Give positions of 0 to {starts[-1] - 1} that are not deleted.")
    facts = facts | {"deleted": sorted({*facts["deleted"], *wanted.tolist()})}
    touched = set((np.searchsorted(starts, wanted, side="right") - 1).tolist())
    for number in touched:
        gone = wanted[(starts[number] <= wanted) & (wanted < starts[number + 1])] - starts[number]
        lengths[number] = lengths[number].copy()
        lengths[number][gone] = 0
    # A chunk's metadata count the tokens before it, so those behind the first touched one change too.
    stale = set(range(min(touched, default=len(lengths)), len(lengths)))
    with _changed(folder, codec, lengths, facts, stale) as changed:
        for number in sorted(stale):
            before = (int(starts[number]), sum(int(part.sum()) for part in lengths[:number]))
            write_chunk(changed, number, _without(read_chunk(folder, number, codec), lengths[number]), before)


def _without(chunk: Chunk, lengths: Int[np.ndarray, " d"]) -> Chunk:
    """The chunk without the tokens of the documents whose new length is 0."""
    keep = np.repeat(lengths > 0, chunk.lengths)
    return Chunk(chunk.codes[keep], chunk.residuals[keep], lengths)


def _contents(folder: Path) -> tuple[Codec, list[Int[np.ndarray, " _"]], dict[str, Any]]:
    """Codec, document lengths of each chunk, and facts; those of a new index where the reference wrote it."""
    codec = read_codec(folder)
    count, facts = read_facts(folder, codec)
    settings = {"settings": {"nbits": codec.nbits}, "source": "", "deleted": []}
    return codec, [read_lengths(folder, number) for number in range(count)], {"format": FORMAT, **settings, **facts}


@contextmanager
def _changed(
    folder: Path, codec: Codec, lengths: Sequence[Int[np.ndarray, " _"]], facts: dict[str, Any], stale: set[int]
) -> Iterator[Path]:
    """A new folder in place of the old one: what is stale is written inside, the rest are the same files."""
    with atomic_folder(folder) as changed:
        for path in folder.iterdir():
            number = next((part for part in path.name.split(".") if part.isdigit()), None)
            if path.name not in REWRITTEN and (number is None or int(number) not in stale):
                link(path, changed / path.name)
        yield changed
        (changed / "ivf.pid.pt").unlink(missing_ok=True)
        write_facts(changed, codec, list(lengths), facts)
        write_all_lists(changed, codec, len(lengths))
        checksums.seal(changed)
