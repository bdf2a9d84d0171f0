"""Memory that a CPU's process has freed: training keeps it for the next step, searching and compiling give it back."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec

# Of glibc's allocator. Nothing is given back; one heap, and no small pieces put aside, since either would keep a large
# array's place from the next one; huge pages.
SETTINGS = {"trim_threshold": 2**63 - 1, "mmap_max": 0, "arena_max": 1, "tcache_count": 0, "mxfast": 0, "hugetlb": 1}
TUNABLES = "GLIBC_TUNABLES"
M_ARENA_MAX = -8  # of glibc's malloc.h
WORDS = ":".join(f"glibc.malloc.{name}={value}" for name, value in SETTINGS.items())


def keep_heap() -> None:
    """Begins this program again, once, with an allocator that keeps freed memory, if it will compute on a CPU.

    By default a step's memory is mapped anew and given back, and the kernel clears its pages each time: a fifth of a
    training step, and half of it where other processes take the pages meanwhile. The process then holds the most that
    it ever needed at once. glibc reads these settings at its start alone, hence the new beginning; call it before
    anything else is done. Whoever sets GLIBC_TUNABLES is left in peace.
    """
    if TUNABLES in os.environ or not _on_glibc() or not _on_cpu():
        return
    os.execve(sys.executable, sys.orig_argv, os.environ | {TUNABLES: WORDS})


def compute_in_turn() -> None:
    """Lets a CPU begin a program only when the memory of the one before it is free; call it before the first one."""
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def one_arena() -> None:
    """Lets all threads share one heap; call it before they begin.

    glibc otherwise gives most threads one of their own, and each keeps what its thread once needed, to compile a
    program for example, where the others cannot have it.
    """
    if TUNABLES not in os.environ and _on_glibc():
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Gives the kernel what is free between other things in the heap, which glibc would keep."""
    if _on_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _on_glibc() -> bool:
    return "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {}) and bool(os.confstr("CS_GNU_LIBC_VERSION"))


def _on_cpu() -> bool:
    """Whether JAX will choose the CPU, without starting it."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms.split(",")[0] == "cpu"
    return not (find_spec("libtpu") or find_spec("jax_plugins") or entry_points(group="jax_plugins"))
