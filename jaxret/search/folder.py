"""A folder on a local disk or in a bucket, reached the same way: files of bytes, and arrays in the zarr format."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.errors import InputError

# Bytes of the pieces that an array is read in; each has a checksum of its own.
PIECE_BYTES = 2**18
FIX = "Encode the corpus again, into a new folder."


class Folder:
    """Files by their names, which may hold slashes. A file is written whole or not at all.

    Args:
      place: a path, or the URL of a bucket's folder (`gs://bucket/folder`).

    Raises:
      InputError: the URL is of no kind that TensorStore knows, or the place cannot be reached.
    """

    def __init__(self, place: str | Path):
        import tensorstore

        text = str(place)
        self.place = text.rstrip("/") if "://" in text else str(Path(text))
        self._url = f"{self.place}/" if "://" in text else f"file://{Path(text).absolute()}/"
        try:
            self._files = tensorstore.KvStore.open(self._url).result()
        except ValueError as error:
            raise InputError(self.place, f"cannot be opened: {error}", "Give a path or gs://bucket/folder.") from None

    def path(self, name: str) -> str:
        """A file as messages call it."""
        return f"{self.place}/{name}"

    def names(self, prefix: str = "") -> list[str]:
        """The names of all files that begin so, sorted."""
        import tensorstore

        keys = tensorstore.KvStore.KeyRange(prefix, _after(prefix))
        return sorted(name.decode() for name in self._files.list(keys).result())

    def read(self, name: str) -> bytes | None:
        """A file's bytes, None where there is no such file."""
        found = self._files.read(name).result()
        return None if found.state == "missing" else found.value

    def write(self, name: str, value: bytes) -> None:
        """Writes a file, in the place of an older one."""
        try:
            self._files.write(name, value).result()
        except ValueError as error:
            raise InputError(self.path(name), f"cannot be written: {error}", "Free some space, then repeat.") from None

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

    def write_json(self, name: str, value: Any) -> str:
        """Writes indented JSON; the SHA-256 of the file."""
        text = (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
        self.write(name, text)
        return hashlib.sha256(text).hexdigest()

    def write_array(self, name: str, array: np.ndarray) -> None:
        """Writes an array as zarr 3: one file in pieces that can be read alone, each with its CRC-32C."""
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
        try:
            opened = tensorstore.open(self._array(name) | {"metadata": metadata}, create=True, delete_existing=True)
            store = opened.result()
            if array.size:
                store.write(array).result()
        except ValueError as error:
            raise InputError(self.path(name), f"cannot be written: {error}", "Free some space, then repeat.") from None

    def array(self, name: str) -> StoredArray:
        """An array that `write_array` wrote; raises InputError where its description is missing or broken."""
        import tensorstore

        try:
            store = tensorstore.open(self._array(name)).result()
            return StoredArray(store, self.path(f"{name}/c{'/0' * store.rank}"))
        except ValueError as error:
            raise InputError(self.path(f"{name}/zarr.json"), f"missing or damaged: {error}", FIX) from None

    def _array(self, name: str) -> dict[str, Any]:
        return {"driver": "zarr3", "kvstore": f"{self._url}{name}/"}


def _after(prefix: str) -> str:
    """The first name that does not begin so, in the order of names; "" stands for none."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ""


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
            raise InputError(self._path, f"damaged: {error}", FIX) from None
