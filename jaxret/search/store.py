"""Encoded corpora on disk: shards of plain .npy arrays and a manifest that is written last.

Documents lie in descending order of their ids, so that "lower position first" is trec_eval's tie rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxret.errors import InputError
from jaxret.files import atomic, atomic_folder, open_text, read_json, sha256, write_json
from jaxret.search.vectors import Ragged, Vectors

MANIFEST, IDS = "vectors.json", "ids.jsonl"
FORMAT = 2
SHARD_DOCUMENTS = 8192


def shard_bounds(count: int, size: int = SHARD_DOCUMENTS) -> Iterator[tuple[int, int]]:
    """First and last-plus-one document of each shard."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


def shard_folder(store: Path, number: int) -> Path:
    """Where one shard lies."""
    return store / f"shard-{number:05d}"


def write_shard(store: str | Path, number: int, vectors: Vectors) -> None:
    """Writes one shard, whole or not at all."""
    with atomic_folder(shard_folder(Path(store), number)) as folder:
        for name, array in _arrays(vectors).items():
            np.save(folder / f"{name}.npy", array)


def seal(store: str | Path, ids: Iterable[str], facts: dict[str, Any]) -> None:
    """Writes the ids, then the manifest that makes the store complete: checksums of all files, and the facts given."""
    store = Path(store)
    with atomic(store / IDS) as file:
        file.writelines(json.dumps(name, ensure_ascii=False) + "\n" for name in ids)
    files = {str(p.relative_to(store)): sha256(p) for p in [store / IDS, *sorted(store.glob("shard-*/*.npy"))]}
    write_json(store / MANIFEST, {"format": FORMAT, **facts, "files": files})


def read_manifest(store: str | Path) -> dict[str, Any]:
    """The manifest of a complete store; raises InputError where there is none."""
    path = Path(store) / MANIFEST
    if not path.exists():
        raise InputError(path, "no such file: the folder is no complete store of vectors", "Run jaxret encode on it.")
    manifest = read_json(path)
    if manifest.get("format") != FORMAT:
        raise InputError(
            path, f"format {manifest.get('format')}, not {FORMAT}", "Run jaxret encode, into a new folder."
        )
    return manifest


def read_vectors(store: str | Path, *, check: bool = True) -> tuple[list[str], Vectors, dict[str, Any]]:
    """Ids, vectors and manifest of a complete store.

    Args:
      store: its folder.
      check: compare every file with its checksum first.

    Raises:
      InputError: incomplete, or a file is missing or damaged.
    """
    manifest = read_manifest(store)
    if check:
        check_files(store, manifest)
    shards = [_shard(folder) for folder in sorted(Path(store).glob("shard-*"))]
    with open_text(Path(store) / IDS) as file:
        ids = [json.loads(line) for line in file]
    return ids, _joined(shards), manifest


def check_files(store: str | Path, manifest: dict[str, Any]) -> None:
    """Raises InputError where a file of the store is missing or differs from its checksum."""
    for name, digest in manifest["files"].items():
        path = Path(store) / name
        if not path.exists() or sha256(path) != digest:
            raise InputError(path, "missing or damaged (its checksum differs)", "Run jaxret encode again.")


class StoredVectors:
    """The vectors of a complete store, left on disk: what is asked for is read.

    Args:
      store: its folder.

    Attributes:
      starts: int64 [n + 1]: the position of each shard's first document, and the number of documents.
    """

    def __init__(self, store: str | Path):
        self._folders = sorted(Path(store).glob("shard-*"))
        sizes = [len(_shard(folder, mmap_mode="r")) for folder in self._folders]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def shard(self, number: int) -> Vectors:
        """One shard, memory-mapped."""
        return _shard(self._folders[number], mmap_mode="r")

    def rows(self, rows: Sequence[int]) -> Vectors:
        """The vectors of some documents (positions in the store, one at least), in the order asked for."""
        numbers = (np.searchsorted(self.starts, rows, side="right") - 1).tolist()
        shards = {number: self.shard(number) for number in sorted(set(numbers))}
        places = [(shards[number], row - int(self.starts[number])) for number, row in zip(numbers, rows, strict=True)]

        def joined(name: str) -> Ragged | None:
            if getattr(places[0][0], name) is None:
                return None
            return Ragged.from_rows([getattr(shard, name).row(place) for shard, place in places])

        vectors = [shard.dense[place] for shard, place in places if shard.dense is not None]
        dense = np.stack(vectors) if vectors else None
        return Vectors(dense, joined("tokens"), joined("term_ids"), joined("term_weights"))


def _arrays(vectors: Vectors) -> dict[str, np.ndarray]:
    arrays = {} if vectors.dense is None else {"dense": vectors.dense}
    for name in ("tokens", "term_ids", "term_weights"):
        if (ragged := getattr(vectors, name)) is not None:
            arrays |= {name: ragged.values, f"{name}_offsets": ragged.offsets}
    return arrays


def _shard(folder: Path, mmap_mode: Literal["r"] | None = None) -> Vectors:
    files = {path.stem: path for path in folder.glob("*.npy")}

    def ragged(name: str) -> Ragged | None:
        if name not in files:
            return None
        return Ragged(np.load(files[name], mmap_mode), np.load(files[f"{name}_offsets"]))

    dense = np.load(files["dense"], mmap_mode) if "dense" in files else None
    return Vectors(dense, ragged("tokens"), ragged("term_ids"), ragged("term_weights"))


def _joined(shards: list[Vectors]) -> Vectors:
    def join(name: str, joined: Callable[[list], Any]) -> Any:
        parts = [getattr(shard, name) for shard in shards]
        return None if parts[0] is None else joined(parts)

    ragged = {name: join(name, Ragged.joined) for name in ("tokens", "term_ids", "term_weights")}
    return Vectors(dense=join("dense", np.concatenate), **ragged)
