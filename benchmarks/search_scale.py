"""Exact MaxSim over 8,192 to a million passages on disk, streamed within a memory budget: seconds and memory.

    .venv/bin/python benchmarks/search_scale.py --plot docs/search-scale.png

Passages of 100 tokens x 128: token vectors of real passages (all-MiniLM-L6-v2 over data/xquad-en, projected to 128
numbers and normalised), each with noise of its own, stored as int8 with a scale. Queries are 32 tokens of a passage
each, with more noise, so the passage that should be first is known. Each search is a process of its own, and its memory
the most that it ever held. A million passages take 13 GB in --folder.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers.peak import peak_mib
from processes import HERE
from scale_plot import plot
from token_vectors import token_encoder

TOKENS, WIDTH, QUERY_TOKENS, SHARD = 100, 128, 32, 8192
NOISE, QUERY_NOISE = 0.3, 0.6  # the length of the noise beside a vector of length 1


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def real_tokens() -> np.ndarray:
    """float32 [n 128]: the token vectors of real passages, one passage after the other."""
    from jaxret.data.beir import BeirFolder

    vectors = token_encoder().passages(BeirFolder(HERE.parent / "data" / "xquad-en").corpus.texts)
    tokens = vectors.needed("tokens").values
    return unit(tokens @ np.random.default_rng(0).normal(size=(tokens.shape[1], WIDTH)).astype(np.float32))


def with_noise(x: np.ndarray, size: float, pool: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Unit vectors; the noise is a stretch of a pool of normal numbers."""
    start = int(random.integers(0, len(pool) - len(x)))
    return unit(x + size / WIDTH**0.5 * pool[start : start + len(x)])


class Passages:
    """The passages in shards, made when they are asked for, and queries made of the first ones."""

    def __init__(self, shards: int):
        self.starts = np.arange(shards + 1) * SHARD
        self._tokens = real_tokens()
        self._pool = np.random.default_rng(1).normal(size=(2**21, WIDTH)).astype(np.float32)

    def shard(self, number: int) -> Any:
        """Vectors of passages."""
        return self._made(number)[0]

    def queries(self) -> np.ndarray:
        """float32 [64 32 128]: of the first 64 passages."""
        vectors, random = self._made(0)
        asked = vectors.tokens.values.reshape(-1, TOKENS, WIDTH)[:64, :QUERY_TOKENS].reshape(-1, WIDTH)
        return with_noise(asked, QUERY_NOISE, self._pool, random).reshape(64, -1, WIDTH)

    def _made(self, number: int) -> Any:
        from jaxret.search.vectors import Ragged, Vectors

        random = np.random.default_rng((2, number))
        first = random.integers(0, len(self._tokens) - TOKENS, SHARD)
        values = self._tokens[(first[:, None] + np.arange(TOKENS)).reshape(-1)]
        values = with_noise(values, NOISE, self._pool, random)
        return Vectors(tokens=Ragged(values, np.arange(0, len(values) + 1, TOKENS))), random


def made(folder: Path, shards: int) -> None:
    """Writes shards of passages, those that are not there, and the queries."""
    from jaxret.search.dtypes import stored_as
    from jaxret.search.folder import Folder
    from jaxret.search.store import has_shard, write_shard

    folder.mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(shards) if not has_shard(Folder(folder), number)]
    if not missing:
        return
    passages = Passages(shards)
    np.save(folder / "queries.npy", passages.queries())
    for number in missing:
        ids = [str(position) for position in range(number * SHARD, (number + 1) * SHARD)]
        write_shard(Folder(folder), number, ids, stored_as(passages.shard(number), "int8"))


def linked(folder: Path, shards: int) -> Path:
    """A store of the first shards, whose files are links."""
    from jaxret.search.folder import Folder
    from jaxret.search.store import MANIFEST, seal, shard_name

    store = folder / f"first-{shards}"
    if not (store / MANIFEST).exists():
        for name in map(shard_name, range(shards)):
            shutil.copytree(folder / name, store / name, copy_function=os.link, dirs_exist_ok=True)
        seal(Folder(store), shards, {})
    return store


def searched(folder: Path, shards: int, queries: int, budget: float) -> dict[str, float]:
    """Runs in a process of its own."""
    from jaxret.runtime.mesh import device_mesh
    from jaxret.search.exact import ExactSearch
    from jaxret.search.store import StoredVectors
    from jaxret.search.vectors import Ragged, Vectors

    asked = Vectors(tokens=Ragged.from_rows(list(np.load(folder / "queries.npy")[:queries])))
    stored = StoredVectors(linked(folder, shards))
    search = ExactSearch("multi_vector", stored, device_mesh(), 100, memory_budget_gb=budget)
    if shards == 1:
        search(asked)  # compiled programs are kept on disk for the larger ones
    start = time.perf_counter()
    _, positions = search(asked)
    seconds = time.perf_counter() - start
    peak = peak_mib() * 2**20 / 1e9
    return {"seconds": seconds, "GB": peak, "right": float((positions[:, 0] == np.arange(queries)).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE.parent / "runs" / "search-scale")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 4, 16, 64, 123], help="of 8,192 passages")
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--budget", type=float, default=2.0, help="GB")
    parser.add_argument("--plot", type=Path, help="an image of seconds and memory over the passages")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(searched(args.folder, args.shards[0], args.queries, args.budget)))
        return
    made(args.folder, max(args.shards))
    print(
        f"{args.queries} queries, a budget of {args.budget} GB\n{'passages':>9} {'seconds':>8} {'GFLOP/s':>8} {'GB':>6}"
    )
    rows = []
    for shards in args.shards:
        command = [sys.executable, __file__, "--alone", "--folder", str(args.folder), "--shards", str(shards)]
        command += ["--queries", str(args.queries), "--budget", str(args.budget)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        passages = shards * SHARD
        rate = 2e-9 * passages * TOKENS * WIDTH * QUERY_TOKENS * args.queries / found["seconds"]
        print(f"{passages:9,} {found['seconds']:8.2f} {rate:8.0f} {found['GB']:6.2f}", flush=True)
        assert found["right"] == 1.0, f"the passage that a query was made of came first for {found['right']:.0%} only"
        rows.append((passages, found["seconds"], found["GB"]))
    if args.plot:
        passages, seconds, memory = zip(*rows, strict=True)
        plot(
            args.plot,
            passages,
            {"search": seconds},
            {"most that the process held": memory},
            unit=f"seconds for {args.queries} queries",
            budget=args.budget,
            of="100 tokens x 128, int8",
        )


if __name__ == "__main__":
    main()
