"""The safetensors format: a length, a JSON header, raw little-endian data."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxret.errors import InputError
from jaxret.files import atomic
from jaxret.nn.convert.lazy_tensor import LazyTensor, mapped_tensor

# The safetensors library writes the last of these first: no tensor stands at an odd place for its dtype.
DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "F32": np.dtype(np.float32),
    "C64": np.dtype(np.complex64),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
HEADER_LIMIT = 100_000_000
COPIED_BYTES = 1 << 24
DOWNLOAD = "Download the file again."


def safetensors_in(path: Path) -> dict[str, LazyTensor]:
    """The tensors of one safetensors file.

    Raises:
      InputError: the file is truncated or corrupt, or holds a dtype that numpy cannot.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_LIMIT):
            raise InputError(path, f"{size} bytes, too short for its safetensors header", DOWNLOAD)
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"))
        header.pop("__metadata__", None)
        entries = {name: _entry(record) for name, record in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(path, f"broken safetensors header ({error!r})", DOWNLOAD) from None
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end or entry.stop - entry.start != math.prod(entry.shape) * entry.dtype.itemsize:
            raise InputError(path, f"tensor {name} is not where the safetensors header says", DOWNLOAD)
        end = entry.stop
    if size != 8 + length + end:
        problem = f"{size} bytes where the safetensors header promises {8 + length + end}: truncated or damaged"
        raise InputError(path, problem, DOWNLOAD)
    return {
        name: mapped_tensor(path, 8 + length + entry.start, entry.dtype, entry.shape) for name, entry in entries.items()
    }


class _Entry(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def _entry(record: Any) -> _Entry:
    shape, (start, stop) = tuple(record["shape"]), record["data_offsets"]
    if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
        raise ValueError("a size or an offset is not a natural number")
    if record["dtype"] not in DTYPES:
        raise ValueError(f"unknown dtype {record['dtype']}")
    return _Entry(DTYPES[record["dtype"]], shape, start, stop)


class SafetensorsWriter:
    """A safetensors file that takes its tensors one by one, in any order, and keeps none in memory.

    They wait in an unnamed file beside `path`; `close` puts the header before them, byte for byte as the safetensors
    library would write them.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.num_bytes = path, 0
        self.entries: dict[str, _Entry] = {}
        self._data: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._data.close()

    def add(self, name: str, array: np.ndarray) -> None:
        """Takes one tensor; raises InputError for a name that it has and a dtype that the format lacks."""
        dtype = array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype
        if name in self.entries or name == "__metadata__":
            raise InputError(self.path, f"tensor {name} twice", "Give every tensor a name of its own.")
        if dtype not in NAMES:
            known = ", ".join(sorted(str(dtype) for dtype in NAMES))
            raise InputError(self.path, f"tensor {name} is {dtype}", f"Choose one of {known}.")
        flat = np.ascontiguousarray(array, dtype).reshape(-1)
        self._data.write(flat.view(np.uint8).data)
        self.entries[name] = _Entry(dtype, array.shape, self.num_bytes, self.num_bytes + flat.nbytes)
        self.num_bytes += flat.nbytes

    def close(self, metadata: Mapping[str, str]) -> None:
        """Writes the file, atomically, and gives the waiting data's disk space back."""
        ranks = {dtype: -rank for rank, dtype in enumerate(NAMES)}
        order = sorted(self.entries.items(), key=lambda item: (ranks[item[1].dtype], item[0]))
        header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
        start = 0
        for name, entry in order:
            stop = start + entry.stop - entry.start
            record = {"dtype": NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [start, stop]}
            header[name], start = record, stop
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with atomic(self.path, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for _, entry in order:
                self._copy(entry, file)
        self._data.close()

    def _copy(self, entry: _Entry, file: IO[bytes]) -> None:
        self._data.seek(entry.start, os.SEEK_SET)
        for start in range(entry.start, entry.stop, COPIED_BYTES):
            file.write(self._data.read(min(COPIED_BYTES, entry.stop - start)))
