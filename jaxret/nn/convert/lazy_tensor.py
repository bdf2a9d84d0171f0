"""A tensor that stays in its file until it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided

from jaxret.errors import InputError


@dataclass(frozen=True)
class LazyTensor:
    """Shape and dtype of a tensor (bfloat16 as `ml_dtypes` has it); `read()` gives the values, read-only.

    A reading maps the file's pages and nothing else, so a slice of it costs a slice.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def mapped_tensor(
    path: Path, offset: int, dtype: np.dtype, shape: tuple[int, ...], strides: tuple[int, ...] | None = None
) -> LazyTensor:
    """A little-endian tensor at a byte offset of a file.

    Args:
      path: the file; it must last until the tensor is read.
      offset: where the tensor's first element is, in bytes.
      dtype: of its elements.
      shape: its sizes.
      strides: in elements, none negative; row by row by default. The caller has checked that they stay in the file.
    """
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape)))

    def read() -> np.ndarray:
        if 0 in shape:
            return np.empty(shape, dtype)
        reach = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        try:
            pages = np.memmap(path, np.uint8, "r", offset, reach * dtype.itemsize)
        except (OSError, ValueError) as error:
            problem = f"cannot be read at byte {offset} ({error})"
            raise InputError(path, problem, "The file changed since it was opened: open it again.") from None
        elements = np.asarray(pages).view(dtype)
        if not elements.flags.aligned:
            elements = elements.copy()
        return as_strided(elements, shape, tuple(stride * dtype.itemsize for stride in strides), writeable=False)

    return LazyTensor(shape, dtype, read)
