"""A folder on a local disk or in a bucket, reached the same way: files of bytes, and arrays in the zarr format."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from jaxret.errors import InputError

# Bytes of the pieces that an array is read in; each has a checksum of its own.
PIECE_BYTES = 2**18
FIX = "Encode the corpus again, into a new folder."
# How TensorStore begins to say that a place cannot be reached, not that what is there is damaged.
UNREACHABLE = ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED")
REACH = "Check the network, the name, and what this account may do there; then repeat."


class Folder:
    """Files by their names, which may hold slashes. A file is written whole or not at all.

    Args:
      place: a path, or the URL of a bucket's folder (`gs://bucket/folder`).

    Raises:
      InputError: the URL is of no kind that TensorStore knows. All functions: the place cannot be reached.
    """

    def __init__(self, place: str | Path):
        import tensorstore

        text = str(place)
        self._remote = "://" in text
        self.place = text.rstrip("/") if self._remote else str(Path(text))
        scheme, path = self.place.split("://", 1) if self._remote else ("file", os.fsencode(Path(text).absolute()))
        self._url = f"{scheme}://{quote(path, safe='/:')}/"
        try:
            self._files = tensorstore.KvStore.open(self._url).result()
        except ValueError as error:
            raise InputError(self.place, f"cannot be opened: {error}", "Give a path or gs://bucket/folder.") from None

    def path(self, name: str) -> str:
        """A file as messages call it."""
        return f"{self.place}/{name}"

    def names(self) -> list[str]:
        """The names of all files, sorted."""
        try:
            return sorted(name.decode() for name in self._files.list().result())
        except ValueError as error:
            raise InputError(self.place, f"cannot be listed: {_reason(error)}", REACH) from None

    def read(self, name: str) -> bytes | None:
        """A file's bytes, None where there is no such file."""
        found = self._read(name)
        return None if found.state == "missing" else found.value

    def write(self, name: str, value: bytes) -> None:
        """Writes a file, in the place of an older one."""
        try:
            self._files.write(name, value).result()
        except ValueError as error:
            raise self._unwritten(name, error) from None

    def create(self, name: str, value: bytes) -> None:
        """Writes a file where there is none; of several writers the first one's stays."""
        found = self._read(name)
        if found.state == "missing":
            try:
                self._files.write(name, value, if_equal=found.stamp.generation).result()
            except ValueError as error:
                raise self._unwritten(name, error) from None

    def copy(self, other: Folder, name: str) -> None:
        """A file of another folder into this one: linked where both are on one file system.

        Raises:
          InputError: the file cannot be read, or not be written here.
        """
        if not self._remote and not other._remote:
            try:
                Path(self.path(name)).parent.mkdir(parents=True, exist_ok=True)
                return os.link(other.path(name), self.path(name))
            except OSError:  # another file system, or one without links, or an older file
                pass
        value = other.read(name)
        if value is None:
            raise InputError(other.path(name), "missing", FIX)
        self.write(name, value)

    def read_json(self, name: str, digest: str | None = None) -> Any:
        """What a JSON file says; with a digest, only if it is the file's SHA-256.

        Raises:
          InputError: there is no such file, or it is damaged.
        """
        value = self.read(name)
        if value is None:
            raise InputError(self.path(name), "no such file", FIX)
        if digest not in (None, hashlib.sha256(value).hexdigest()):
            raise InputError(self.path(name), "damaged (its checksum differs)", FIX)
        try:
            return json.loads(value)
        except json.JSONDecodeError as error:
            raise InputError(f"{self.path(name)}:{error.lineno}", f"broken JSON: {error.msg}", FIX) from None
        except UnicodeDecodeError as error:
            raise InputError(self.path(name), f"broken JSON: {error}", FIX) from None

    def write_json(self, name: str, value: Any) -> None:
        """Writes indented JSON."""
        self.write(name, json_bytes(value))

    def write_array(self, name: str, array: np.ndarray) -> list[str]:
        """Writes an array as zarr 3: one file in pieces that can be read alone, each with its CRC-32C.

        Returns:
          The names of its files.
        """
        import tensorstore

        size = max(1, len(array))
        row = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64)))
        rows = min(max(1, PIECE_BYTES // row), size)
        checked = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        pieces = {"chunk_shape": [rows, *array.shape[1:]], "codecs": checked, "index_codecs": checked}
        whole = [-(-size // rows) * rows, *array.shape[1:]]
        metadata = {
            "shape": list(array.shape),
            "data_type": array.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": whole}},
            "codecs": [{"name": "sharding_indexed", "configuration": pieces}],
        }
        spec = self._array(name) | {"metadata": metadata, "store_data_equal_to_fill_value": True}
        try:
            store = tensorstore.open(spec, create=True, delete_existing=True).result()
            if array.size:
                store.write(array).result()
        except ValueError as error:
            raise self._unwritten(name, error) from None
        return [f"{name}/zarr.json", *([f"{name}/c{'/0' * array.ndim}"] if array.size else [])]

    def array(self, name: str) -> StoredArray:
        """An array that `write_array` wrote; raises InputError where its description is missing or broken."""
        import tensorstore

        try:
            store = tensorstore.open(self._array(name)).result()
            return StoredArray(store, self.path(f"{name}/c{'/0' * store.rank}"))
        except ValueError as error:
            raise _unread(self.path(f"{name}/zarr.json"), "missing or damaged", error) from None

    def _read(self, name: str) -> Any:
        try:
            return self._files.read(name).result()
        except ValueError as error:
            raise InputError(self.path(name), f"cannot be read: {_reason(error)}", REACH) from None

    def _unwritten(self, name: str, error: ValueError) -> InputError:
        fix = REACH if self._remote else "Free some space, then repeat."
        return InputError(self.path(name), f"cannot be written: {_reason(error)}", fix)

    def _array(self, name: str) -> dict[str, Any]:
        return {"driver": "zarr3", "kvstore": f"{self._url}{name}/"}


def json_bytes(value: Any) -> bytes:
    """Indented JSON as a file has it."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def _reason(error: ValueError) -> str:
    """What TensorStore says, without the lines on how it came there."""
    return str(error).split(" [")[0]


def _unread(path: str, damage: str, error: ValueError) -> InputError:
    """Of a file that cannot be read: the error that calls it damaged, unless the place cannot be reached."""
    if str(error).startswith(UNREACHABLE):
        return InputError(path, f"cannot be read: {_reason(error)}", REACH)
    return InputError(path, f"{damage}: {_reason(error)}", FIX)


class StoredArray:
    """An array that stays where it is; what is asked for is read, and its checksums compared.

    Attributes:
      shape, dtype: as of an array.
    """

    def __init__(self, store: Any, path: str):
        self._store, self._path = store, path
        self.shape: tuple[int, ...] = tuple(store.shape)
        self.dtype: np.dtype = store.dtype.numpy_dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Some rows, in the order asked for; raises InputError where the file is damaged."""
        try:
            return self._store[rows].read().result()
        except ValueError as error:
            raise _unread(self._path, "damaged", error) from None
