"""Files as `torch.save` writes them, for libraries that read a head from a pickle; written without torch."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxret.errors import InputError
from jaxret.files import atomic

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage"}


def write_torch_file(path: Path, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes a state dict in torch's zip format.

    Args:
      path: the file, `.pt` or `.bin`.
      tensors: `(name, values)` of float32, float16 or bfloat16.

    Raises:
      InputError: another dtype.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in tensors}
    for name, array in arrays.items():
        if array.dtype.name not in STORAGES:
            problem = f"{array.dtype.name} has no place in a torch file"
            raise InputError(f"tensor {name}", problem, f"Choose one of {', '.join(STORAGES)}.")
    with atomic(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        inside = path.stem
        archive.writestr(f"{inside}/data.pkl", _pickle(arrays))
        archive.writestr(f"{inside}/byteorder", "little")
        for number, array in enumerate(arrays.values()):
            archive.writestr(f"{inside}/data/{number}", array.astype(array.dtype.newbyteorder("<")).tobytes())
        archive.writestr(f"{inside}/version", "3\n")


def _pickle(arrays: dict[str, np.ndarray]) -> bytes:
    """The pickle (protocol 2) of `{name: tensor}` whose storages are the archive's files `data/<number>`."""
    items = [_text(name) + _tensor(number, array) for number, (name, array) in enumerate(arrays.items())]
    return b"\x80\x02" + b"}" + b"(" + b"".join(items) + b"u" + b"."


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
