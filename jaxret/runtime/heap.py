"""Memory of a training process on a CPU: what one step frees stays for the next."""

from __future__ import annotations

import ctypes

import jax

# What malloc.h of glibc calls M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX and M_ARENA_MAX, with their new values.
SETTINGS = {-1: -1, -2: 64 * 2**20, -4: 0, -8: 1}


def keep_heap() -> bool:
    """Makes glibc's allocator keep freed memory, if this process computes on a CPU; says whether it does.

    By default every large array is mapped anew and given back, and the kernel clears its pages each time: a third of a
    training step. The process then holds the most that it ever needed at once. Call it before the first computation.
    """
    library = ctypes.CDLL(None)
    if jax.default_backend() != "cpu" or not hasattr(library, "mallopt"):
        return False
    return all(library.mallopt(name, value) for name, value in SETTINGS.items())
