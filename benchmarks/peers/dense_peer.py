"""One system that finds each query's best documents whenever it is told to.

Run by benchmarks/dense_vs_peers.py as `python dense_peer.py LIBRARY FOLDER QUERIES K`.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from peak import peak_mib

library, folder, count, k = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
QUERIES = np.load(folder / "queries.npy")[:count]
SHARD = 8192


def seconds(search) -> float:
    start = time.perf_counter()
    search()
    return time.perf_counter() - start


def ours():
    """jaxret, at its defaults."""
    from jaxret.runtime.heap import one_arena
    from jaxret.runtime.mesh import device_mesh
    from jaxret.search.exact import ExactSearch
    from jaxret.search.store import StoredVectors
    from jaxret.search.vectors import Vectors

    one_arena()  # as the command does
    mesh, before = device_mesh(), peak_mib()
    search = ExactSearch("dense", StoredVectors(folder / "store"), mesh, k)
    return lambda: search(Vectors(QUERIES)), f"{before:.0f} MiB before the corpus"


def theirs():
    """FAISS, at the best of several sizes of its blocks."""
    import faiss

    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    before, index = peak_mib(), faiss.IndexFlatIP(QUERIES.shape[1])
    with open(folder / "dense.f32", "rb") as file:
        while len(shard := np.fromfile(file, np.float32, SHARD * QUERIES.shape[1])):
            index.add(shard.reshape(-1, QUERIES.shape[1]))

    def sized(queries: int, documents: int) -> float:
        faiss.cvar.distance_compute_blas_query_bs = queries
        faiss.cvar.distance_compute_blas_database_bs = documents
        return min(seconds(lambda: index.search(QUERIES, k)) for _ in range(2))

    best = min(((4096, 1024), (4096, 4096), (1024, 1024), (4096, 512)), key=lambda sizes: sized(*sizes))
    sized(*best)
    return lambda: index.search(QUERIES, k), f"{before:.0f} MiB before the corpus, blocks of {best[0]} x {best[1]}"


search, setting = {"jaxret": ours, "faiss": theirs}[library]()
search()
print(f"ready {setting}", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    scores, ids = search()
    taken = time.perf_counter() - start
    np.savez(folder / f"{library}.npz", scores=scores, ids=ids)
    print(taken, peak_mib(), flush=True)
