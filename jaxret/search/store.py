"""Encoded corpora on disk or in a bucket: shards of zarr arrays, each with a record, and a manifest written last.

Documents lie in descending order of their ids, so that "lower position first" is trec_eval's tie rule. The layout:

    vectors.json                    the manifest: format, facts, for each shard its documents and its record's SHA-256
    shard-00000/shard.json          the record: its files, written when all of them are there, and their checksums
    shard-00000/ids.jsonl           ids of its documents, a JSON string a line
    shard-00000/dense               [n e]
    shard-00000/tokens              [(l) k], the token vectors of all documents one after the other
    shard-00000/tokens_offsets      int64 [n + 1]: document i has the rows from offsets[i] to offsets[i + 1]
    shard-00000/term_ids            int32 [(m)] and term_ids_offsets; term_weights float32 and term_weights_offsets
    shard-00000/dense_scales        float32 [n]; token_scales [(l)], token_scales_offsets: of vectors that are int8

An array is zarr 3, one file with the sharding codec; each of its pieces has a CRC-32C, compared when it is read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.errors import InputError
from jaxret.runtime.checksums import with_checksum, without_checksum
from jaxret.search.dtypes import decoded
from jaxret.search.folder import FIX, REACH, Folder, StoredArray
from jaxret.search.vectors import Ragged, Vectors, check_finite

MANIFEST, RECORD, IDS = "vectors.json", "shard.json", "ids.jsonl"
FORMAT = 3
SHARD_DOCUMENTS = 8192
RAGGED = ("tokens", "term_ids", "term_weights", "token_scales")
OPEN_SHARDS = 2


def shard_bounds(count: int, size: int = SHARD_DOCUMENTS) -> Iterator[tuple[int, int]]:
    """First and last-plus-one document of each shard."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


def shard_name(number: int) -> str:
    """The folder of a shard."""
    return f"shard-{number:05d}"


def has_shard(store: Folder, number: int) -> bool:
    """Whether a shard is there, whole."""
    return store.read(f"{shard_name(number)}/{RECORD}") is not None


def write_shard(store: Folder, number: int, ids: Sequence[str], vectors: Vectors) -> None:
    """Writes one shard; without its record, which comes last, it counts for nothing.

    Raises:
      InputError: a document's vectors are not finite, or the store cannot be written.
    """
    check_finite(vectors, "document", ids)
    shard = shard_name(number)
    lines = "".join(json.dumps(name, ensure_ascii=False) + "\n" for name in ids).encode()
    store.write(f"{shard}/{IDS}", lines)
    files: dict[str, str | None] = {IDS: hashlib.sha256(lines).hexdigest()}
    for name, array in _arrays(vectors).items():
        for path in store.write_array(f"{shard}/{name}", array):
            described = hashlib.sha256(store.read(path) or b"").hexdigest() if path.endswith("/zarr.json") else None
            files[path.removeprefix(f"{shard}/")] = described
    store.write_json(f"{shard}/{RECORD}", {"documents": len(ids), "files": dict(sorted(files.items()))})


def seal(store: Folder, shards: int, facts: dict[str, Any]) -> None:
    """Writes the manifest that makes a store complete.

    Args:
      store: where all of its shards are.
      shards: how many.
      facts: what the manifest says besides.
    """
    entries = []
    for number in range(shards):
        name = f"{shard_name(number)}/{RECORD}"
        if (text := store.read(name)) is None:
            raise InputError(store.path(name), "no such file: the shard is not complete", FIX)
        entries.append({"documents": json.loads(text)["documents"], "sha256": hashlib.sha256(text).hexdigest()})
    store.write_json(MANIFEST, with_checksum({"format": FORMAT, **facts, "shards": entries}))


def read_manifest(store: str | Path | Folder) -> dict[str, Any]:
    """The manifest of a complete store; raises InputError where there is none."""
    folder = store if isinstance(store, Folder) else Folder(store)
    if folder.read(MANIFEST) is None:
        problem = "no such file: the folder is no complete store of vectors"
        raise InputError(folder.path(MANIFEST), problem, "Run jaxret encode on it.")
    manifest = folder.read_json(MANIFEST)
    if manifest.get("format") != FORMAT:
        problem = f"format {manifest.get('format')}, not {FORMAT}"
        raise InputError(folder.path(MANIFEST), problem, "Run jaxret encode, into a new folder.")
    bare = without_checksum(manifest)
    if bare is None:
        raise InputError(folder.path(MANIFEST), "damaged (its checksum differs)", FIX)
    return bare


class StoredVectors:
    """The vectors of a complete store, left where they are: what is asked for is read, and its checksums compared.

    Args:
      store: its folder, a path or a bucket's URL.

    Attributes:
      place: as messages call it.
      manifest: what `seal` wrote.
      starts: int64 [shards + 1]: the position of each shard's first document, and the number of documents.

    Raises:
      InputError: the store is incomplete, or a file of it is missing or, of those read at once, damaged.
    """

    def __init__(self, store: str | Path):
        self._folder = Folder(store)
        self.place = self._folder.place
        self.manifest = read_manifest(self._folder)
        sizes = [entry["documents"] for entry in self.manifest["shards"]]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        names = set(self._folder.names())
        if MANIFEST not in names:  # as of a bucket's account that may read and not list
            raise InputError(self.place, "its files cannot be listed", REACH)
        self._records = [self._record(number, names) for number in range(len(sizes))]
        self._opened = lru_cache(maxsize=OPEN_SHARDS)(self._arrays)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def ids_at(self, positions: Sequence[int] | np.ndarray) -> list[str]:
        """Ids of some documents, in the order asked for; those of one shard at a time are read whole."""
        places = np.asarray(positions, np.int64)
        order = np.argsort(places, kind="stable")
        bounds = np.searchsorted(places[order], self.starts)
        found = np.empty(len(places), object)
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            names, mine = self._ids(number), order[bounds[number] : bounds[number + 1]]
            found[mine] = [names[place] for place in (places[mine] - self.starts[number]).tolist()]
        return found.tolist()

    def offsets(self, number: int, name: str) -> np.ndarray:
        """int64 [n + 1]: where each document of a shard begins in one of its ragged arrays."""
        return self._array(number, f"{name}_offsets")[:]

    def shard(self, number: int) -> Vectors:
        """All of one shard, in the dtype of the store."""
        return self.part(number, 0, int(self.starts[number + 1] - self.starts[number]))

    def part(self, number: int, start: int, stop: int, names: Sequence[str] | None = None) -> Vectors:
        """The documents from `start` to `stop` of a shard, counted in it, in the dtype of the store.

        Args:
          number: of the shard.
          start, stop: documents.
          names: the attributes of `Vectors` that are read; all by default.
        """
        found: dict[str, Any] = {}
        for name in names or [field.name for field in dataclasses.fields(Vectors)]:
            if not self.has(name):
                continue
            if name in RAGGED:
                offsets = self._array(number, f"{name}_offsets")[start : stop + 1]
                values = self._array(number, name)[int(offsets[0]) : int(offsets[-1])]
                found[name] = Ragged(values, offsets - offsets[0])
            else:
                found[name] = self._array(number, name)[start:stop]
        return Vectors(**found)

    def parts(self, names: Sequence[str], limit: int | None, share: tuple[int, int]) -> Iterator[tuple[int, Vectors]]:
        """Parts of the corpus, each with the position of its first document.

        Args:
          names: the attributes of `Vectors` that are read.
          limit: bytes of a part; None for a shard at a time. A part has one document at least.
          share: (number, count): every count-th shard, from that number.
        """
        for number in range(share[0], len(self._records), share[1]):
            documents = int(self.starts[number + 1] - self.starts[number])
            ends = self._ends(number, names) if limit else np.array([])
            start = 0
            while start < documents:
                stop = documents
                if limit:
                    stop = int(np.searchsorted(ends, (ends[start - 1] if start else 0) + limit, side="right"))
                    stop = max(stop, start + 1)
                yield int(self.starts[number]) + start, self.part(number, start, stop, names)
                start = stop

    def lengths(self, name: str, share: tuple[int, int]) -> Iterator[np.ndarray]:
        """As `Vectors` has it."""
        for number in range(share[0], len(self._records), share[1]):
            documents = int(self.starts[number + 1] - self.starts[number])
            yield np.diff(self.offsets(number, name)) if name in RAGGED else np.ones(documents, np.int64)

    def nbytes(self, names: Sequence[str]) -> int:
        """Bytes of some of the attributes of `Vectors`, of those that the store holds."""
        shards = range(len(self._records))
        return sum(
            len(self._array(shard, name)) * self.itemsize(name) for name in filter(self.has, names) for shard in shards
        )

    def _ends(self, number: int, names: Sequence[str]) -> np.ndarray:
        """Bytes of a shard's documents up to each one and with it."""
        documents = int(self.starts[number + 1] - self.starts[number])
        total = np.zeros(documents, np.int64)
        for name in filter(self.has, names):
            places = self.offsets(number, name)[1:] if name in RAGGED else np.arange(1, documents + 1)
            total += places * self.itemsize(name)
        return total

    def needed(self, name: str) -> None:
        """Raises InputError where the store lacks what the model's head would have made."""
        if not self.has(name):
            fix = "Use a model with the head that makes it, or another mode."
            raise InputError(self._folder.path(MANIFEST), f"{name!r} is missing", fix)

    def has(self, name: str) -> bool:
        """Whether the store holds an attribute of `Vectors`."""
        return bool(self._records) and f"{name}/zarr.json" in self._records[0]["files"]

    def itemsize(self, name: str) -> int:
        """Bytes of one row of an array."""
        array = self._array(0, name)
        return array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))

    def rows(self, rows: Sequence[int] | np.ndarray) -> Vectors:
        """The vectors of some documents (positions in the store, one at least), float32, in the order asked for."""
        positions = np.asarray(rows, np.int64)
        numbers = np.searchsorted(self.starts, positions, side="right") - 1
        parts, places = list[Vectors](), np.empty(len(positions), np.int64)
        for number in np.unique(numbers).tolist():
            mine = np.flatnonzero(numbers == number)
            places[mine] = np.arange(len(mine)) + sum(map(len, parts))
            parts.append(decoded(self._chosen(number, positions[mine] - self.starts[number])))
        return joined(parts).chosen(places)

    def files(self, number: int) -> list[str]:
        """Names of a shard's files, in its folder, without its record."""
        return list(self._records[number]["files"])

    def check(self) -> None:
        """Reads everything; raises InputError where a file is damaged."""
        for number in range(len(self._records)):
            self._ids(number)
            for array in self._opened(number).values():
                array[:]

    def _chosen(self, number: int, rows: np.ndarray) -> Vectors:
        """Some documents of a shard, in its dtype."""
        found: dict[str, Any] = {}
        for name in (field.name for field in dataclasses.fields(Vectors) if self.has(field.name)):
            if name not in RAGGED:
                found[name] = self._array(number, name)[rows]
                continue
            values = self._array(number, name)
            places, offsets = Ragged(np.empty(0), self.offsets(number, name)).places(rows)
            found[name] = Ragged(values[places], offsets)
        return Vectors(**found)

    def _array(self, number: int, name: str) -> StoredArray:
        return self._opened(number)[name]

    def _arrays(self, number: int) -> dict[str, StoredArray]:
        """The arrays of a shard, their descriptions checked."""
        found, shard = {}, shard_name(number)
        for file, digest in self._records[number]["files"].items():
            if file.endswith("/zarr.json"):
                self._folder.read_json(f"{shard}/{file}", digest)
                name = file.removesuffix("/zarr.json")
                found[name] = self._folder.array(f"{shard}/{name}")
        return found

    def _record(self, number: int, names: set[str]) -> dict[str, Any]:
        """What a shard should hold; raises InputError where a file is missing."""
        shard = shard_name(number)
        record = self._folder.read_json(f"{shard}/{RECORD}", self.manifest["shards"][number]["sha256"])
        for name in record["files"]:
            if f"{shard}/{name}" not in names:
                raise InputError(self._folder.path(f"{shard}/{name}"), "missing", FIX)
        return record

    def _ids(self, number: int) -> list[str]:
        name = f"{shard_name(number)}/{IDS}"
        lines = self._folder.read(name) or b""
        if hashlib.sha256(lines).hexdigest() != self._records[number]["files"][IDS]:
            raise InputError(self._folder.path(name), "missing or damaged (its checksum differs)", FIX)
        return [json.loads(line) for line in lines.decode().split("\n")[:-1]]


def joined(parts: Sequence[Vectors]) -> Vectors:
    """The vectors of several parts, one at least, one after the other."""

    def join(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        if found[0] is None:
            return None
        return Ragged.joined(found) if isinstance(found[0], Ragged) else np.concatenate(found)

    return Vectors(**{field.name: join(field.name) for field in dataclasses.fields(Vectors)})


def _arrays(vectors: Vectors) -> dict[str, np.ndarray]:
    arrays = dict[str, np.ndarray]()
    for field in dataclasses.fields(Vectors):
        part = getattr(vectors, field.name)
        if isinstance(part, Ragged):
            arrays |= {field.name: part.values, f"{field.name}_offsets": part.offsets.astype(np.int64)}
        elif part is not None:
            arrays[field.name] = part
    return arrays
