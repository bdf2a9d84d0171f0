"""Arrays of numpy that a program on a CPU takes as they are."""

from __future__ import annotations

import math

import numpy as np

ALIGNED = 64  # bytes


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of any numbers, so placed that JAX takes it on a CPU without a copy."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + ALIGNED, np.uint8)
    start = -room.ctypes.data % ALIGNED
    return room[start : start + size].view(dtype).reshape(shape)


class Room:
    """Arrays that are written again and again, zeros at first."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The array of this name and shape."""
        if (name, shape) not in self._made:
            self._made[name, shape] = aligned(shape, dtype)
            self._made[name, shape][...] = 0
        return self._made[name, shape]
