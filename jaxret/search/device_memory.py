"""Whether what is put on devices fits them, as far as they say: CPUs, whose memory is the host's, do not."""

from __future__ import annotations

from typing import Any, NamedTuple

from jax.sharding import Mesh

from jaxret.errors import InputError
from jaxret.search.blocks import MODES, SIZES, BlockSizes, block_rows
from jaxret.search.budget import GB
from jaxret.search.store import StoredVectors
from jaxret.search.vectors import Vectors


class Free(NamedTuple):
    """The device with the least free memory.

    Attributes:
      device: as messages call it.
      free, limit: bytes that are free, and that it may hold.
    """

    device: str
    free: int
    limit: int


def memory_stats(device: Any) -> dict[str, int] | None:
    """What a device says of its memory; None where it says nothing."""
    return device.memory_stats()


def least_free(mesh: Mesh) -> Free | None:
    """The device with the least free memory; None where none of them says."""
    told = [
        (device, stats) for device in mesh.devices.flat if (stats := memory_stats(device)) and "bytes_limit" in stats
    ]
    free = [
        Free(str(device), stats["bytes_limit"] - stats.get("bytes_in_use", 0), stats["bytes_limit"])
        for device, stats in told
    ]
    return min(free, key=lambda one: one.free, default=None)


def fits_devices(mode: str, corpus: Vectors | StoredVectors, mesh: Mesh, share: tuple[int, int]) -> bool:
    """Whether a corpus may stay on the devices, each of which has blocks of it; arguments as of `ExactSearch`."""
    least = least_free(mesh)
    return least is None or placed_bytes(mode, corpus, mesh, share) <= least.free


def placed_bytes(mode: str, corpus: Vectors | StoredVectors, mesh: Mesh, share: tuple[int, int]) -> int:
    """Bytes of the blocks of a corpus on each device, padding included."""
    arrays = [name for name in MODES[mode].arrays if corpus.has(name)]
    sizes, width = block_sizes(mesh), sum(map(corpus.itemsize, arrays))
    return width * sum(block_rows(mode, lengths, mesh.size, sizes) for lengths in corpus.lengths(arrays[0], share))


def check_devices(mesh: Mesh, needed: int, what: str, fix: str) -> None:
    """Raises InputError where so many bytes are more than a device has left.

    Args:
      mesh: the devices.
      needed: bytes on each of them.
      what: needs them.
      fix: what the user can do.
    """
    least = least_free(mesh)
    if least is not None and needed > least.free:
        free, limit = least.free / GB, least.limit / GB
        problem = f"{what} would take {needed / GB:.2f} GB of it, and of {limit:.2f} GB {free:.2f} are free"
        raise InputError(least.device, problem, fix)


def block_sizes(mesh: Mesh) -> BlockSizes:
    """Of the blocks that its devices are given."""
    return SIZES.get(mesh.devices.flat[0].platform, SIZES["gpu"])
