"""fast-plaid's search, for benchmarks/search_quality.py: python plaid_peer.py NBITS K VECTORS.npz.

Each line that it reads is answered with one search's seconds, the bytes of the index, then scores and documents; the
searches are with 1 probe and 256 full scores, then with 2 and 1024.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from fast_plaid import search

SETTINGS = [(1, 256), (2, 1024)]


def rows(values: np.ndarray, offsets: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(values[first:last].copy()) for first, last in zip(offsets[:-1], offsets[1:], strict=True)]


def main() -> None:
    nbits, k, data = int(sys.argv[1]), int(sys.argv[2]), np.load(sys.argv[3])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    documents, queries = rows(data["d"], data["d_offsets"]), rows(data["q"], data["q_offsets"])
    with tempfile.TemporaryDirectory() as folder:
        index = search.FastPlaid(index=folder, device="cpu")
        index.create(documents_embeddings=documents, nbits=nbits)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        print("ready -", flush=True)
        for (probes, full), _ in zip(SETTINGS, sys.stdin, strict=False):
            settings = {"top_k": k, "n_ivf_probe": probes, "n_full_scores": full, "show_progress": False}
            index.search(queries_embeddings=queries[:8], **settings)
            start = time.perf_counter()
            found = index.search(queries_embeddings=queries, **settings)
            seconds = time.perf_counter() - start
            padded = [[*row, *[(-1, 0.0)] * (k - len(row))] for row in found]
            numbers = [score for row in padded for _, score in row] + [
                document for row in padded for document, _ in row
            ]
            print(seconds, size, *numbers, flush=True)


if __name__ == "__main__":
    main()
