"""fast-plaid in its own environment: builds an index, then searches it with the settings of each line that it reads.

Run by benchmarks/plaid_vs_peer.py as `python plaid_peer.py FOLDER NBITS K`. A line is "N_IVF_PROBE N_FULL_SCORES", and
"one" behind them where queries come one at a time. It answers with the seconds; results are in FOLDER/found.npy.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from fast_plaid import search

folder, nbits, k = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
CORES = len(os.sched_getaffinity(0))


def rows(name: str) -> list[torch.Tensor]:
    values, offsets = torch.from_numpy(np.load(folder / f"{name}.npy")), np.load(folder / f"{name}-offsets.npy")
    return [values[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def run(queries: list[torch.Tensor], probe: int, full: int, threads: int, processes: int | None):
    """Seconds and results of all queries in one call."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    found = index.search(
        queries, top_k=k, n_ivf_probe=probe, n_full_scores=full, show_progress=False, n_processes=processes
    )
    return time.perf_counter() - start, found


def best_of(queries: list[torch.Tensor], *settings: tuple[int, int | None]) -> tuple[int, int | None]:
    """The threads and processes that are fastest."""
    return min(settings, key=lambda setting: min(run(queries, 4, 16 * k, *setting)[0] for _ in range(2)))


torch.set_num_threads(CORES)
index = search.FastPlaid(index=str(folder / f"fast-plaid-{nbits}"), device="cpu")
start = time.perf_counter()
index.create(documents_embeddings=rows("documents"), nbits=nbits)
built = time.perf_counter() - start
QUERIES = rows("queries")
TOGETHER = best_of(QUERIES[:24], (CORES, 1), (CORES, None), (1, CORES))
ALONE = best_of(QUERIES[:1], (CORES, 1), (1, 1))
print(f"ready {built} {TOGETHER} {ALONE}", flush=True)
for line in sys.stdin:
    probe, full, *alone = line.split()
    batches = [[query] for query in QUERIES] if alone else [QUERIES]
    seconds, found = 0.0, []
    for batch in batches:
        took, some = run(batch, int(probe), int(full), *(ALONE if alone else TOGETHER))
        seconds, found = seconds + took, found + some
    table = np.full((len(found), k), -1, np.int64)
    for row, results in enumerate(found):
        table[row, : len(results)] = [position for position, _ in results]
    np.save(folder / "found.npy", table)
    print(seconds, flush=True)
