"""Torch's pickles, zip files and the older plain streams, read without torch and without running what is in them.

The unpickler knows a fixed list of globals, each an immutable stand-in of ours, so the worst that a hostile file can
make is a wrong tensor. Everything that it leaves behind is checked against the file before a byte is read.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxret.errors import InputError
from jaxret.nn.convert.lazy_tensor import LazyTensor, mapped_tensor

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SAFER = "Do not trust the file; if you do, load it with PyTorch and save its tensors as safetensors."
DOWNLOAD = "Download the file again; if that does not help, load it with PyTorch and save its tensors as safetensors."


class _Storage(NamedTuple):
    """Where the file keeps values: the storage's key, and the dtype and the number of its elements."""

    key: Any
    dtype: Any
    size: Any


class _Tensor(NamedTuple):
    """A tensor as the pickle describes it; offset and strides in elements. Nothing in it is to be trusted."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any
    dtype: Any = None


# Instances of named tuples take no new attributes and no state, so a pickle cannot bend what it is given.
class _StorageType(NamedTuple):
    dtype: np.dtype


class _Dtype(NamedTuple):
    dtype: np.dtype


class _Rebuild(NamedTuple):
    rebuilt: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.rebuilt(*args)


STORAGES = {
    "BoolStorage": np.bool_,
    "ByteStorage": np.uint8,
    "CharStorage": np.int8,
    "ShortStorage": np.int16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "UntypedStorage": np.uint8,
}
SCALARS = {
    "bool": np.bool_,
    "uint8": np.uint8,
    "int8": np.int8,
    "uint16": np.uint16,
    "int16": np.int16,
    "uint32": np.uint32,
    "int32": np.int32,
    "uint64": np.uint64,
    "int64": np.int64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}


def _tensor_v3(storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any) -> Any:
    return _Tensor(storage, offset, shape, strides, dtype)


GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): _Rebuild(tuple),
    ("torch._utils", "_rebuild_tensor"): _Rebuild(lambda *args: _Tensor(*args[:4])),
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(lambda *args: _Tensor(*args[:4])),
    ("torch._utils", "_rebuild_tensor_v3"): _Rebuild(_tensor_v3),
    ("torch._utils", "_rebuild_parameter"): _Rebuild(lambda tensor, *_: tensor),
    ("torch._utils", "_rebuild_parameter_with_state"): _Rebuild(lambda tensor, *_: tensor),
    ("torch.storage", "UntypedStorage"): _StorageType(np.dtype(np.uint8)),
    **{("torch", name): _StorageType(np.dtype(dtype)) for name, dtype in STORAGES.items()},
    **{("torch", name): _Dtype(np.dtype(dtype)) for name, dtype in SCALARS.items()},
}


class _Unpickler(pickle._Unpickler):
    """Builds numbers, strings, containers and the globals above, nothing else.

    Python's own unpickler: the one in C allocates as much memory as a damaged memo index asks for.
    """

    def __init__(self, file: BufferedIOBase, path: Path):
        super().__init__(file, encoding="utf-8")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return GLOBALS[module, name]
        except KeyError:
            problem = f"the pickle asks for {module}.{name}, which is no part of a tensor"
            raise InputError(self.path, problem, SAFER) from None

    def persistent_load(self, pid: Any) -> Any:
        kind, storage_type, key, _, size, *view = pid
        if kind != "storage" or any(part is not None for part in view):
            raise ValueError(f"unknown persistent object {kind!r}")
        return _Storage(key, storage_type.dtype, size)


def pickled_tensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a file that `torch.save` wrote, by name; those of nested dicts are "outer.inner".

    Numbers, strings and other values beside the tensors are left out.

    Raises:
      InputError: the file is truncated, corrupt, big-endian, not a torch file or without named tensors, or its pickle
        asks for anything that is no part of a tensor; nothing of it has run.
    """
    tensors = _opened(path, _named)
    if not tensors:
        raise InputError(path, "holds no named tensors", "Save the model's state_dict.")
    return tensors


def listed_tensors(path: Path) -> list[LazyTensor]:
    """The tensors of a file that holds one tensor, or a tuple or list of tensors.

    Raises:
      InputError: as `pickled_tensors` does, or the file holds anything else.
    """
    tensors = list(_opened(path, _listed).values())
    if not tensors:
        raise InputError(path, "holds no tensor, nor a tuple of tensors", "Save one tensor, or a tuple of tensors.")
    return tensors


def _opened(path: Path, named: Callable[[Any], Iterator[tuple[str, _Tensor]]]) -> dict[str, LazyTensor]:
    """The tensors that `named` finds in the file's value."""
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            value, places = _zip_contents(file, path) if start == b"PK\x03\x04" else _legacy_contents(file, path)
        size = path.stat().st_size
        tensors = {}
        for name, tensor in named(value):
            if name in tensors:
                raise ValueError(f"two tensors named {name}")
            tensors[name] = _lazy(tensor, places, path, size)
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its random opcodes happen to do
        raise InputError(path, f"not a readable torch file ({type(error).__name__}: {error})", DOWNLOAD) from None
    return tensors


Places = Mapping[Any, tuple[int, int]]
"""The byte offset and number of bytes of each storage."""


def _zip_contents(file: BufferedIOBase, path: Path) -> tuple[Any, Places]:
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        root = next(name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")).split("/")[0]
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise ValueError("compressed, which torch never writes")
        if f"{root}/constants.pkl" in entries:
            raise ValueError("a TorchScript program")
        order = archive.read(f"{root}/byteorder") if f"{root}/byteorder" in entries else b"little"
        _refuse_big_endian(order == b"little", path)
        value = _Unpickler(BytesIO(archive.read(f"{root}/data.pkl")), path).load()
    places = {}
    for name, info in entries.items():
        if name.startswith(f"{root}/data/"):
            file.seek(info.header_offset)
            header = file.read(30)
            if header[:4] != b"PK\x03\x04":
                raise ValueError("the zip's directory and its entries differ")
            extra = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            places[name.removeprefix(f"{root}/data/")] = (info.header_offset + 30 + extra, info.file_size)
    return value, places


def _legacy_contents(file: BufferedIOBase, path: Path) -> tuple[Any, Places]:
    if _Unpickler(file, path).load() != LEGACY_MAGIC or _Unpickler(file, path).load() != LEGACY_PROTOCOL:
        raise ValueError("a pickle that torch.save did not write, or one of torch before 0.1.10")
    system = _Unpickler(file, path).load()
    _refuse_big_endian(system["little_endian"] is True, path)
    unpickler = _LegacyUnpickler(file, path)
    value = unpickler.load()
    keys = _Unpickler(file, path).load()
    places = {}
    for key in keys:
        size = int.from_bytes(file.read(8), "little") * unpickler.item_bytes[key]
        places[key] = (file.tell(), size)
        file.seek(size, 1)
    return value, places


class _LegacyUnpickler(_Unpickler):
    """Remembers the size of each storage's elements: the stream itself gives their number only."""

    def __init__(self, file: BufferedIOBase, path: Path):
        super().__init__(file, path)
        self.item_bytes: dict[Any, int] = {}

    def persistent_load(self, pid: Any) -> Any:
        storage = super().persistent_load(pid)
        self.item_bytes[storage.key] = storage.dtype.itemsize
        return storage


def _refuse_big_endian(little: bool, path: Path) -> None:
    if not little:
        problem = "written on a big-endian machine"
        raise InputError(path, problem, "Load it with PyTorch and save its tensors as safetensors.")


def _named(value: Any) -> Iterator[tuple[str, _Tensor]]:
    seen: set[int] = set()

    def named(value: dict, prefix: str) -> Iterator[tuple[str, _Tensor]]:
        if id(value) in seen:
            raise ValueError(f"the dict {prefix!r} stands in two places")
        seen.add(id(value))
        for key, inner in dict.items(value):
            if isinstance(inner, _Tensor):
                yield f"{prefix}{key}", inner
            elif isinstance(inner, dict):
                yield from named(inner, f"{prefix}{key}.")

    return named(value, "") if isinstance(value, dict) else iter(())


def _listed(value: Any) -> Iterator[tuple[str, _Tensor]]:
    values = list(value) if type(value) in (tuple, list) else [value]
    if not all(isinstance(tensor, _Tensor) for tensor in values):
        return iter(())
    return ((str(number), tensor) for number, tensor in enumerate(values))


def _lazy(tensor: _Tensor, places: Places, path: Path, file_bytes: int) -> LazyTensor:
    """The tensor in the file, after a check that all its elements lie inside its storage and the file."""
    storage = tensor.storage
    if not isinstance(storage, _Storage):
        raise TypeError(f"a tensor over {storage!r}")
    dtype = tensor.dtype.dtype if isinstance(tensor.dtype, _Dtype) else storage.dtype
    shape, strides = tuple(tensor.shape), tuple(tensor.strides)
    numbers = (tensor.offset, *shape, *strides)
    if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(f"a tensor of shape {shape} and strides {strides}")
    reach = 0 if 0 in shape else 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    start, num_bytes = places[storage.key] if reach else (0, 0)
    first = start + tensor.offset * dtype.itemsize
    end = first + reach * dtype.itemsize
    if reach and end > min(start + num_bytes, file_bytes):
        raise InputError(path, f"a tensor of shape {shape} ends at byte {end}, after its storage", DOWNLOAD)
    return mapped_tensor(path, first, dtype, shape, strides)
