"""Our exact dense search beside FAISS's flat index, float32 scores, in one interleaved run.

    make bench-setup
    .venv/bin/python benchmarks/dense_vs_peers.py
    taskset -c 0 .venv/bin/python benchmarks/dense_vs_peers.py      # one core

Synthetic unit vectors: 1,000 queries, then 8, then 1, against 200,000 x 384, top 100. Each system has a process of its
own, which reads the corpus in shards and keeps it in memory; FAISS's blocks have the best of four sizes. Of each the
results are compared with a sum in float64: a document may only stand above another that is at most 1e-6 worse.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from processes import ENVIRONMENTS, HERE, Process, compared

SYSTEMS = {"jaxret": ENVIRONMENTS["jaxret"], "faiss": ENVIRONMENTS["sentence_transformers"]}
SHARD, NEAR = 8192, 1e-6


def unit(shape: tuple[int, int], seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def made(folder: Path, documents: int, queries: int, width: int) -> None:
    """Writes a store, which FAISS's process reads as a plain file, and the queries."""
    from jaxret.search.folder import Folder
    from jaxret.search.store import seal, shard_bounds, write_shard
    from jaxret.search.vectors import Vectors

    bounds = list(shard_bounds(documents, SHARD))
    with open(folder / "dense.f32", "wb") as file:
        for number, (start, stop) in enumerate(bounds):
            shard = unit((stop - start, width), number + 1)
            shard.tofile(file)
            write_shard(Folder(folder / "store"), number, [""] * (stop - start), Vectors(shard))
    seal(Folder(folder / "store"), len(bounds), {})
    np.save(folder / "queries.npy", unit((queries, width), 0))


def check(folder: Path, name: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and ids of a system's last run, after a comparison with float64."""
    found = np.load(folder / f"{name}.npz")
    scores, ids, queries = found["scores"], found["ids"], np.load(folder / "queries.npy")
    corpus = np.memmap(folder / "dense.f32", np.float32, "r").reshape(-1, queries.shape[1])
    for query, mine, places in zip(queries[: len(ids)], scores, ids, strict=True):
        exact = corpus[places].astype(np.float64) @ query.astype(np.float64)
        assert len(set(places.tolist())) == k and np.abs(mine - exact).max() < NEAR, name
    for row in range(min(len(ids), 20)):
        every = corpus @ queries[row]
        every[ids[row]] = -np.inf
        assert every.max() < scores[row, -1] + NEAR, f"{name} has missed a document"
    return scores, ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--queries", default="1000,8,1")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--environments", type=Path, default=HERE.parent, help="the folder that holds .venv and .venv-st"
    )
    args = parser.parse_args()
    counts = [int(count) for count in args.queries.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made(folder, args.documents, max(counts), args.width)
        for count in counts:
            systems = {
                system: Process(args.environments / place, "dense_peer.py", system, folder, count, args.k)
                for system, place in SYSTEMS.items()
            }
            compared(systems, args.rounds, f"{count:5} queries")
            ours, theirs = (check(folder, system, args.k) for system in SYSTEMS)
            other = ours[1] != theirs[1]
            assert np.all(np.abs(ours[0] - theirs[0]) < NEAR), "scores differ"
            print(f"{count:5} queries, {other.sum()} of {other.size} places held by a document as near", flush=True)
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, {args.documents} x {args.width}, top {args.k}, medians of {args.rounds} rounds")


if __name__ == "__main__":
    main()
