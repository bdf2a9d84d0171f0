"""Searches stores larger than a memory budget: python peak.py '{settings as JSON}' prints what the process held.

A line for each mode, in bytes: what it held before, what it may hold, the most that it held, and the store.
"""

import json
import re
import sys
from pathlib import Path

import jax
import numpy as np

from jaxret.runtime.heap import give_back
from jaxret.runtime.mesh import device_mesh
from jaxret.search import budget, exact
from jaxret.search.folder import Folder
from jaxret.search.store import StoredVectors, seal, write_shard
from jaxret.search.vectors import Ragged, Vectors

SHARDS, WIDTH, TOKENS = 12, 128, 32


def shard(documents):
    """Vectors of one shard of each store; all shards are alike."""
    random = np.random.default_rng(0)
    tokens = random.random((documents * TOKENS, WIDTH), np.float32)
    return {
        "dense": Vectors(dense=random.random((documents * TOKENS, WIDTH), np.float32)),
        "multi_vector": Vectors(tokens=Ragged(tokens, np.arange(documents + 1, dtype=np.int64) * TOKENS)),
    }


def stored(folder, vectors, shards):
    for number in range(shards):
        write_shard(Folder(folder), number, [""] * len(vectors), vectors)
    seal(Folder(folder), shards, {})
    return StoredVectors(folder)


def searched(mode, store, budget_gb):
    queries = Vectors(
        dense=np.ones((2, WIDTH), np.float32),
        tokens=Ragged(np.ones((6, WIDTH), np.float32), np.array([0, 2, 6], np.int64)),
    )
    mesh = device_mesh((1, 1, 1), jax.devices()[:1])
    return exact.ExactSearch(mode, store, mesh, 5, memory_budget_gb=budget_gb)(queries)


def main(folder, documents, more):
    """Writes stores of 12 shards, and searches each within what the process holds before it and `more` bytes."""
    tiny, large = shard(8), shard(documents)
    stores = {}
    for mode in large:
        searched(mode, stored(Path(folder) / f"tiny-{mode}", tiny[mode], 1), None)
        stores[mode] = stored(Path(folder) / mode, large[mode], SHARDS)
    del tiny, large
    budget.PROGRAMS = 10**8  # these are small, and so the stores may be
    for mode, store in stores.items():
        give_back()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        allowed = budget.resident_bytes() + more
        searched(mode, store, allowed / budget.GB)
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        print(allowed - more, allowed, 1024 * int(peak), store.nbytes(("dense", "tokens")), flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
