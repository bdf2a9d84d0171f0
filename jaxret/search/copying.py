"""A complete store of vectors into another folder, so that what was encoded once serves an index too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jaxret.data.corpus import Corpus
from jaxret.search.corpus import CLAIM, check_identity, open_store
from jaxret.search.encode import TextEncoder
from jaxret.search.folder import Folder, json_bytes
from jaxret.search.store import MANIFEST, RECORD, StoredVectors, has_shard, seal, shard_name


def copy_store(
    store: str | Path,
    folder: str | Path,
    encoder: TextEncoder,
    corpus: Corpus,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Copies a store, after reading all of it; finished shards are kept, so a killed run continues.

    On one file system its files are linked, not copied. A folder with a complete store of the same is left as it is.

    Args:
      store: what `encode_corpus` made, complete: a folder, or a bucket's URL.
      folder: where the copy will be.
      encoder, corpus: what the store must have been made of.
      progress: hears how many more documents are there.

    Raises:
      InputError: the store is incomplete, damaged, or of another model, text template or corpus; or the folder was
        begun with another model, corpus, dtype or size of shards.
    """
    stored = open_store(store, encoder, corpus)
    source, target = Folder(stored.place), Folder(folder)
    claim = {name: value for name, value in stored.manifest.items() if name not in ("format", "shards")}
    target.create(CLAIM, json_bytes(claim))
    check_identity(target.path(CLAIM), target.read_json(CLAIM), claim)
    if target.read(MANIFEST) is not None:
        return
    stored.check()
    shards = len(stored.starts) - 1
    for number in range(shards):
        if not has_shard(target, number):
            _copy_shard(stored, source, target, number)
        if progress:
            progress(int(stored.starts[number + 1] - stored.starts[number]))
    seal(target, shards, claim)


def _copy_shard(stored: StoredVectors, source: Folder, target: Folder, number: int) -> None:
    """Copies the files of a shard, its record last."""
    for name in (*stored.files(number), RECORD):
        target.copy(source, f"{shard_name(number)}/{name}")
