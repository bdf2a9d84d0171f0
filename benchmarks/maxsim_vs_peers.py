"""Our exact MaxSim search beside the scorers of PyLate, sentence-transformers and maxsim-cpu, in one interleaved run.

    make bench-setup
    .venv/bin/python benchmarks/maxsim_vs_peers.py
    taskset -c 0 .venv/bin/python benchmarks/maxsim_vs_peers.py      # one core
    .venv/bin/python benchmarks/maxsim_vs_peers.py --data FOLDER --split test --documents 3000

Synthetic unit vectors: 64 queries x 32 tokens against 5,000 ragged documents, top 100. With --data token vectors of a
BEIR folder's first passages and first judged queries, from all-MiniLM-L6-v2 or --model; peers, which take queries of
one length, get zeros after the shorter ones, which add nothing to a score. Each peer is tuned over its batch sizes
first and runs in the dtype that the row names; ours is ExactSearch at its defaults.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from processes import HERE, Process
from token_vectors import first_vectors, options

PEERS = {"pylate": ".venv-pylate", "sentence_transformers": ".venv-st", "maxsim_cpu": ".venv-st"}
FLOAT32_ONLY = ("maxsim_cpu",)


def synthetic(documents: int, width: int, queries: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 177, documents)
    unit = lambda x: (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)  # noqa: E731
    return {
        "queries": unit(rng.normal(size=(queries, 32, width))),
        "query_lengths": np.full(queries, 32),
        "tokens": unit(rng.normal(size=(int(lengths.sum()), width))),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]),
    }


def encoded(args: argparse.Namespace) -> dict[str, np.ndarray]:
    _, corpus, queries = first_vectors(args, args.documents)
    tokens, rows = corpus.needed("tokens"), queries.needed("tokens")
    padded = np.zeros((len(queries), rows.lengths.max(), rows.values.shape[1]), np.float32)
    for number, length in enumerate(rows.lengths):
        padded[number, :length] = rows.row(number)
    return {"queries": padded, "query_lengths": rows.lengths, "tokens": tokens.values, "offsets": tokens.offsets}


class Peer(Process):
    """A peer's exact scoring: seconds, and each query's best document."""

    def __call__(self) -> tuple[float, np.ndarray]:
        seconds, *ids = super().__call__()
        return float(seconds), np.array(ids, int)


class Ours:
    """jaxret's ExactSearch."""

    setting = "-"

    def __init__(self, data: dict[str, np.ndarray], dtype: str):
        from jaxret.runtime.mesh import device_mesh
        from jaxret.search.exact import ExactSearch
        from jaxret.search.vectors import Ragged, Vectors

        corpus = Vectors(tokens=Ragged(data["tokens"], data["offsets"]))
        rows = [row[:length] for row, length in zip(data["queries"], data["query_lengths"], strict=True)]
        self._queries = Vectors(tokens=Ragged.from_rows(rows))
        self._search = ExactSearch("multi_vector", corpus, device_mesh(), int(data["k"]), dtype=dtype)
        self()

    def __call__(self) -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        _, ids = self._search(self._queries)
        return time.perf_counter() - start, ids[:, 0]

    def close(self) -> None:
        pass


def main() -> None:
    parser = options(__doc__, queries=64)
    parser.set_defaults(data=None)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--width", type=int, default=128, help="of synthetic vectors")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument(
        "--environments", type=Path, default=HERE.parent, help="the folder that holds .venv-pylate and .venv-st"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        data = encoded(args) if args.data else synthetic(args.documents, args.width, args.queries)
        data["k"] = np.array(args.k)
        np.savez(path, **data)
        flop = 2 * data["query_lengths"].sum() * data["tokens"].size
        for dtype in ("float32", "bfloat16"):
            systems = {"jaxret": Ours(data, dtype)}
            systems |= {
                name: Peer(args.environments / PEERS[name], "maxsim_peer.py", name, dtype, path)
                for name in args.peers.split(",")
                if dtype == "float32" or name not in FLOAT32_ONLY
            }
            times: dict[str, list[float]] = {name: [] for name in systems}
            for _ in range(args.rounds):
                found = {}
                for name, system in systems.items():
                    seconds, found[name] = system()
                    times[name].append(seconds)
            same = {name: float((ids == found["jaxret"]).mean()) for name, ids in found.items()}
            assert dtype != "float32" or min(same.values()) == 1.0, f"the best documents differ: {same}"
            ours = median(times["jaxret"])
            for name, system in systems.items():
                ms = median(times[name]) * 1e3
                rates = f"{ms:8.0f} ms  {flop / ms / 1e6:6.0f} GFLOP/s  {ms / ours / 1e3:5.2f} x ours"
                print(f"{dtype:9} {name:22} {rates}  same best {same[name]:.2f}  setting {system.setting}", flush=True)
                system.close()
    cores = len(os.sched_getaffinity(0))
    shape = " x ".join(map(str, data["queries"].shape))
    corpus = f"{len(data['offsets']) - 1} documents, {len(data['tokens'])} tokens"
    print(f"{cores} cores, queries {shape}, {corpus}, top {args.k}, medians of {args.rounds} rounds")


if __name__ == "__main__":
    main()
