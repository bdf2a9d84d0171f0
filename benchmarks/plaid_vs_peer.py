"""Our compressed search beside fast-plaid's over the same token vectors, at equal recall, in one interleaved run.

    make setup .venv/weights .venv-plaid/installed
    .venv/bin/python benchmarks/plaid_vs_peer.py --data data/xquad-en --split test

Token vectors of all-MiniLM-L6-v2 (384 numbers), or of --model. Recall is of the first K of exact MaxSim. Both systems
search with every setting of a grid once; of those that reach a recall the fastest runs again, in turn with the other
system's, all queries in one call and one query a call. Bytes are those of the index's folder.
"""

import itertools
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from processes import HERE, Process
from token_vectors import options, token_encoder

from jaxret.data.beir import BeirFolder
from jaxret.eval.systems import judged
from jaxret.search.corpus import encode_corpus, open_store
from jaxret.search.exact import ExactSearch
from jaxret.search.plaid.build import PlaidSettings, build_plaid
from jaxret.search.plaid.index import PlaidIndex
from jaxret.search.plaid.search import PlaidSearch
from jaxret.search.plaid.stages import Pruning, published_pruning

FEW = 32  # queries that are asked one at a time
Setting = tuple[int, ...]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def ndocs(k: int) -> list[int]:
    """Documents that both systems rank by their centroids before they decompress any; a fourth is decompressed."""
    return [4 * k, 8 * k, 16 * k, 32 * k]


class Ours:
    """jaxret's PlaidSearch; a setting is (ncells, ndocs)."""

    def __init__(self, stored, queries, folder: Path, nbits: int, k: int, mesh):
        start = time.perf_counter()
        build_plaid(stored, folder / "plaid", PlaidSettings(nbits=nbits))
        self.built, self.size = time.perf_counter() - start, size(folder / "plaid")
        self._index, self._queries, self._k, self._mesh = PlaidIndex.load(folder / "plaid"), queries, k, mesh
        self._searches: dict[Setting, PlaidSearch] = {}

    def settings(self) -> list[Setting]:
        return list(itertools.product((1, 2, 4, 8), ndocs(self._k)))

    def __call__(self, setting: Setting, alone: bool = False) -> tuple[float, np.ndarray]:
        threshold = published_pruning(self._k).centroid_score_threshold
        pruning = Pruning(setting[0], threshold, setting[1])
        if setting not in self._searches:
            self._searches[setting] = PlaidSearch(self._index, self._mesh, self._k, pruning)
            self._searches[setting](self._queries)  # compiles
        search, count = self._searches[setting], len(self._queries)
        batches = [self._queries.part(row, row + 1) for row in range(FEW)] if alone else [self._queries.part(0, count)]
        if alone:
            search(batches[0])
        start = time.perf_counter()
        found = [search(batch)[1] for batch in batches]
        return time.perf_counter() - start, np.concatenate(found)


class Theirs:
    """fast-plaid; a setting is (n_ivf_probe, n_full_scores)."""

    def __init__(self, environments: Path, folder: Path, nbits: int, k: int):
        self._process = Process(environments / ".venv-plaid", "plaid_peer.py", folder, nbits, k)
        self.built, self.size = float(self._process.setting.split()[0]), size(folder / f"fast-plaid-{nbits}")
        self._found, self._k = folder / "found.npy", k

    def settings(self) -> list[Setting]:
        return list(itertools.product((1, 2, 4, 8), ndocs(self._k)))

    def __call__(self, setting: Setting, alone: bool = False) -> tuple[float, np.ndarray]:
        seconds = float(self._process(*setting, *(("one",) if alone else ()))[0])
        return seconds, np.load(self._found)


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    pairs = zip(found.tolist(), exact.tolist(), strict=True)
    return float(np.mean([len(set(some) & set(best)) / len(best) for some, best in pairs]))


def compared(systems, exact: np.ndarray, targets: list[float], rounds: int) -> None:
    tried = {}
    for name, system in systems.items():
        runs = {setting: system(setting) for setting in system.settings()}
        tried[name] = {setting: (seconds, recall(found, exact)) for setting, (seconds, found) in runs.items()}
        for setting, (seconds, reached) in tried[name].items():
            print(f"    {name} {setting}: {len(exact) / seconds:.1f} queries/s, recall {reached:.4f}", flush=True)
        best = max(part[1] for part in tried[name].values())
        words = f"built in {system.built:.1f} s, {system.size / 1e6:.1f} MB, highest recall {best:.4f}"
        print(f"{name:10} {words}", flush=True)
    for target in targets:
        enough = {name: [s for s, (_, reached) in runs.items() if reached >= target] for name, runs in tried.items()}
        if not all(enough.values()):
            print(f"recall {target}: not reached by {', '.join(name for name in enough if not enough[name])}")
            continue
        chosen = {name: min(some, key=lambda s: tried[name][s][0]) for name, some in enough.items()}
        line(systems, chosen, {name: tried[name][chosen[name]][1] for name in systems}, target, len(exact), rounds)


def line(systems, chosen, reached, target: float, count: int, rounds: int) -> None:
    """Times the chosen settings in turn and prints queries a second of each."""
    for alone in (False, True):
        runs = [{name: system(chosen[name], alone)[0] for name, system in systems.items()} for _ in range(rounds)]
        asked = FEW if alone else count
        ratio = median(run["fast-plaid"] / run["jaxret"] for run in runs)
        for name in systems:
            rate = asked / median(run[name] for run in runs)
            words = "one at a time" if alone else "together"
            print(f"recall {target:5} {words:14} {name:10} {rate:9.1f} queries/s  recall {reached[name]:.4f}", end="")
            print(f"  {chosen[name]}" + (f"  {ratio:5.2f} x" if name == "jaxret" else ""), flush=True)


def main() -> None:
    parser = options(__doc__, 256)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--nbits", type=int, default=4)
    parser.add_argument("--recall", type=float, nargs="+", default=[0.9, 0.95])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--environments", type=Path, default=HERE.parent, help="the folder that holds .venv-plaid")
    args = parser.parse_args()
    data, encoder = BeirFolder(args.data), token_encoder(args.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stored = open_store(encode_corpus(encoder, data.corpus, folder / "store"), encoder)
        queries = encoder.queries(judged(data, args.split)[1][: args.queries])
        _, exact = ExactSearch("multi_vector", stored, encoder.mesh, args.k)(queries)
        documents = stored.rows(np.arange(len(data.corpus))).needed("tokens")
        for side, tokens in (("documents", documents), ("queries", queries.needed("tokens"))):
            np.save(folder / f"{side}.npy", tokens.values)
            np.save(folder / f"{side}-offsets.npy", tokens.offsets)
        print(
            f"{len(exact)} queries, {len(documents)} passages, {len(documents.values)} tokens x "
            f"{documents.values.shape[1]}, {args.nbits} bits, recall of the first {args.k}, "
            f"{len(os.sched_getaffinity(0))} cores, medians of {args.rounds} rounds",
            flush=True,
        )
        del documents
        systems = {
            "jaxret": Ours(stored, queries, folder, args.nbits, args.k, encoder.mesh),
            "fast-plaid": Theirs(args.environments, folder, args.nbits, args.k),
        }
        compared(systems, exact, args.recall, args.rounds)


if __name__ == "__main__":
    main()
