"""Files as `torch.save` writes them, for libraries that read tensors from pickles; written without torch."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxret.errors import InputError
from jaxret.files import atomic

STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int32": "IntStorage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
}


def write_torch_file(path: Path, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes a state dict in torch's zip format.

    Args:
      path: the file, `.pt` or `.bin`.
      tensors: `(name, values)`, of a dtype in STORAGES.

    Raises:
      InputError: another dtype.
    """
    named = [(f"tensor {name}", name, np.asarray(array, order="C")) for name, array in tensors]

    def pickled(parts: list[bytes]) -> bytes:
        items = [_text(name) + part for (_, name, _), part in zip(named, parts, strict=True)]
        return b"}" + b"(" + b"".join(items) + b"u"

    _write(path, [(place, array) for place, _, array in named], pickled)


def write_torch_value(path: Path, value: np.ndarray | Sequence[np.ndarray]) -> None:
    """Writes one tensor, or a tuple of tensors, in torch's zip format; raises InputError as `write_torch_file` does."""
    alone = isinstance(value, np.ndarray)
    arrays = [np.asarray(array, order="C") for array in ([value] if alone else value)]
    _write(path, [(str(path), array) for array in arrays], lambda parts: parts[0] if alone else _tuple(*parts))


def _write(path: Path, arrays: list[tuple[str, np.ndarray]], pickled: Callable[[list[bytes]], bytes]) -> None:
    """The archive; `pickled` joins the pickles of the tensors, stored in the files `data/<number>`, to the value's."""
    for place, array in arrays:
        if array.dtype.name not in STORAGES:
            problem = f"{array.dtype.name} has no place in a torch file"
            raise InputError(place, problem, f"Choose one of {', '.join(STORAGES)}.")
    parts = [_tensor(number, array) for number, (_, array) in enumerate(arrays)]
    with atomic(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        inside = path.stem
        archive.writestr(_entry(f"{inside}/data.pkl"), b"\x80\x02" + pickled(parts) + b".")
        archive.writestr(_entry(f"{inside}/byteorder"), "little")
        for number, (_, array) in enumerate(arrays):
            data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            archive.writestr(_entry(f"{inside}/data/{number}"), data.tobytes())
        archive.writestr(_entry(f"{inside}/version"), "3\n")


def _entry(name: str) -> zipfile.ZipInfo:
    """An entry without the time, so that the same tensors give the same bytes."""
    return zipfile.ZipInfo(name)


def _tensor(number: int, array: np.ndarray) -> bytes:
    size = array.shape
    strides = [int(np.prod(size[axis + 1 :], dtype=np.int64)) for axis in range(len(size))]
    kind = _name("torch", STORAGES[array.dtype.name])
    storage = _tuple(_text("storage"), kind, _text(str(number)), _text("cpu"), _int(array.size)) + b"Q"
    hooks = _name("collections", "OrderedDict") + b")R"
    arguments = (storage, _int(0), _tuple(*map(_int, size)), _tuple(*map(_int, strides)), b"\x89", hooks)
    return _name("torch._utils", "_rebuild_tensor_v2") + _tuple(*arguments) + b"R"


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    return b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()


def _int(number: int) -> bytes:
    return b"\x8a\x08" + number.to_bytes(8, "little", signed=True)


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"
