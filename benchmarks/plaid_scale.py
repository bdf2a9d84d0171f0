"""Compressed search of 8,192 to a million passages within a memory budget: seconds to build, open and search, memory.

    .venv/bin/python benchmarks/plaid_scale.py --plot docs/plaid-scale.png

The passages and queries of benchmarks/search_scale.py, made shard by shard as the build asks for them, compressed to 2
bits; a million take 4 GB in --folder. Building and searching are processes of their own, and their memory is the most
that each ever held. "right" is the share of queries whose first result is the passage that they were made of; in a
million passages, made of the same 37,555 tokens, some 1,900 hold the same 32 tokens with other noise, more than the
published pruning keeps, so it is measured with 8,192 documents after the first cut too.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from peers.peak import peak_mib
from processes import HERE
from scale_plot import plot
from search_scale import SHARD, Passages

K = 10
WIDER = 32  # times the published number of documents after the first cut


def built(folder: Path, shards: int, centroids: int, points: int) -> dict[str, float]:
    """Runs in a process of its own."""
    from jaxret.runtime.compile_cache import use_compile_cache
    from jaxret.search.plaid.build import PlaidSettings, build_plaid

    use_compile_cache()
    folder.mkdir(parents=True, exist_ok=True)
    passages = Passages(shards)
    np.save(folder / "queries.npy", passages.queries())
    settings = PlaidSettings(nbits=2, num_centroids=centroids, points_per_centroid=points)
    start = time.perf_counter()
    build_plaid(passages, index_of(folder, shards), settings)
    return {"seconds": time.perf_counter() - start, "GB": peak_mib() * 2**20 / 1e9}


def searched(folder: Path, shards: int, budget: float) -> dict[str, float]:
    """Runs in a process of its own."""
    from jaxret.runtime.compile_cache import use_compile_cache
    from jaxret.runtime.mesh import device_mesh
    from jaxret.search.plaid.index import PlaidIndex
    from jaxret.search.plaid.search import PlaidSearch
    from jaxret.search.vectors import Ragged, Vectors

    use_compile_cache()
    asked = Vectors(tokens=Ragged.from_rows(list(np.load(folder / "queries.npy"))))
    start = time.perf_counter()
    index = PlaidIndex.load(index_of(folder, shards))
    search = PlaidSearch(index, device_mesh(), K, memory_budget_gb=budget)
    found = {"open": time.perf_counter() - start}
    for name, more in (("", 1), ("wide ", WIDER)):
        search.pruning = replace(search.pruning, ndocs=more * search.pruning.ndocs)
        search(asked)  # compiles
        start = time.perf_counter()
        _, positions = search(asked)
        found[f"{name}ms"] = (time.perf_counter() - start) / len(asked) * 1e3
        found[f"{name}right"] = float((positions[:, 0] == np.arange(len(asked))).mean())
    size = sum(path.stat().st_size for path in index_of(folder, shards).iterdir())
    return found | {"GB": peak_mib() * 2**20 / 1e9, "disk": size / 1e9}


def index_of(folder: Path, shards: int) -> Path:
    return folder / f"plaid-{shards}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE.parent / "runs" / "plaid-scale")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 16, 123], help="of 8,192 passages")
    parser.add_argument("--centroids", type=int, default=32768, help="at most")
    parser.add_argument("--points", type=int, default=64, help="vectors that k-means learns a centroid from")
    parser.add_argument("--budget", type=float, default=6.0, help="GB, of the search")
    parser.add_argument("--plot", type=Path, help="an image of time and memory over the passages")
    parser.add_argument("--alone", choices=("build", "search"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        number = args.shards[0]
        build = args.alone == "build"
        found = (
            built(args.folder, number, args.centroids, args.points)
            if build
            else searched(args.folder, number, args.budget)
        )
        print(json.dumps(found))
        return
    print(f"a budget of {args.budget} GB for the search\n{'passages':>9} {'on disk':>8} {'build':>8} {'GB':>5}", end="")
    print(f" {'open':>6} {'GB':>5} {'ms/query':>9} {'right':>6} {'wider, ms':>9} {'right':>6}", flush=True)
    rows = []
    for shards in args.shards:
        found = {}
        for step in ("build", "search"):
            command = [sys.executable, __file__, "--alone", step, *sys.argv[1:], "--shards", str(shards)]
            found[step] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        build, search = found["build"], found["search"]
        print(f"{shards * SHARD:9,} {search['disk']:5.2f} GB {build['seconds']:6.0f} s {build['GB']:5.2f}", end="")
        print(f" {search['open']:4.1f} s {search['GB']:5.2f}", end="")
        print(
            "".join(f" {search[f'{name}ms']:9.1f} {search[f'{name}right']:6.2f}" for name in ("", "wide ")), flush=True
        )
        rows.append((search["ms"], search["wide ms"], search["GB"], search["disk"]))
    if args.plot:
        ms, wide, memory, disk = zip(*rows, strict=True)
        plot(
            args.plot,
            [shards * SHARD for shards in args.shards],
            {"as published": ms, f"{WIDER} x the documents after the first cut": wide},
            {"most that the search held": memory, "on disk": disk},
            unit="ms a query",
            budget=args.budget,
            of="100 tokens x 128, 2 bits",
        )


if __name__ == "__main__":
    main()
