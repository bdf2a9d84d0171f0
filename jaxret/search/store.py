"""Encoded corpora on disk: shards of plain .npy arrays and a manifest that is written last.

Documents lie in descending order of their ids, so that "lower position first" is trec_eval's tie rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.errors import InputError
from jaxret.files import atomic_folder, read_json, sha256, write_json
from jaxret.search.vectors import Ragged, Vectors

MANIFEST = "vectors.json"
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


def seal(store: str | Path, ids: list[str], facts: dict[str, Any]) -> None:
    """Writes the manifest that makes the store complete: ids, checksums of all files, and the facts given."""
    store = Path(store)
    files = {str(p.relative_to(store)): sha256(p) for p in sorted(store.glob("shard-*/*.npy"))}
    write_json(store / MANIFEST, {"format": 1, **facts, "ids": ids, "files": files})


def read_manifest(store: str | Path) -> dict[str, Any]:
    """The manifest of a complete store; raises InputError where there is none."""
    path = Path(store) / MANIFEST
    if not path.exists():
        raise InputError(path, "no such file: the folder is no complete store of vectors", "Run jaxret encode on it.")
    return read_json(path)


def read_vectors(store: str | Path, *, check: bool = True) -> tuple[list[str], Vectors, dict[str, Any]]:
    """Ids, vectors and manifest of a complete store.

    Args:
      store: its folder.
      check: compare every file with its checksum first.

    Raises:
      InputError: incomplete, or a file is missing or damaged.
    """
    store, manifest = Path(store), read_manifest(store)
    for name, digest in manifest["files"].items() if check else ():
        if not (store / name).exists() or sha256(store / name) != digest:
            raise InputError(store / name, "missing or damaged (its checksum differs)", "Run jaxret encode again.")
    shards = [_shard(folder) for folder in sorted(store.glob("shard-*"))]
    return manifest["ids"], _joined(shards), manifest


def _arrays(vectors: Vectors) -> dict[str, np.ndarray]:
    arrays = {} if vectors.dense is None else {"dense": vectors.dense}
    for name in ("tokens", "term_ids", "term_weights"):
        if (ragged := getattr(vectors, name)) is not None:
            arrays |= {name: ragged.values, f"{name}_offsets": ragged.offsets}
    return arrays


def _shard(folder: Path) -> Vectors:
    files = {path.stem: path for path in folder.glob("*.npy")}

    def ragged(name: str) -> Ragged | None:
        return Ragged(np.load(files[name]), np.load(files[f"{name}_offsets"])) if name in files else None

    dense = np.load(files["dense"]) if "dense" in files else None
    return Vectors(dense, ragged("tokens"), ragged("term_ids"), ragged("term_weights"))


def _joined(shards: list[Vectors]) -> Vectors:
    def join(name: str, joined: Callable[[list], Any]) -> Any:
        parts = [getattr(shard, name) for shard in shards]
        return None if parts[0] is None else joined(parts)

    ragged = {name: join(name, Ragged.joined) for name in ("tokens", "term_ids", "term_weights")}
    return Vectors(dense=join("dense", np.concatenate), **ragged)
