"""Quality, bytes and queries a second of exact and compressed MaxSim on one BEIR folder.

    .venv/bin/python benchmarks/search_quality.py --data data/xquad-en --split test

Token vectors of all-MiniLM-L6-v2 (384 numbers; no late interaction model, so compression costs it more). Each row is a
search of all judged queries, the second of two timed. Recall is of the exact search's first ten. Bytes are those of the
vectors on disk.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from processes import HERE, minilm

from jaxret.data.beir import BeirFolder
from jaxret.eval.metrics import mean_scores
from jaxret.eval.systems import judged
from jaxret.runtime.layouts import load_pretrained
from jaxret.runtime.mesh import device_mesh
from jaxret.search.corpus import encode_corpus, open_store, store_ids
from jaxret.search.encode import TextEncoder
from jaxret.search.exact import ExactSearch
from jaxret.search.plaid.build import PlaidSettings, build_plaid
from jaxret.search.plaid.index import PlaidIndex
from jaxret.search.plaid.search import PlaidSearch
from jaxret.search.plaid.stages import UNPRUNED, Pruning, published_pruning
from jaxret.search.runs import Run

K = 10
PRUNINGS = {"published": published_pruning(K), "2 cells": Pruning(2, 0.45, 1024), "every document": UNPRUNED}
COMPRESSED = [(nbits, 1) for nbits in (4, 2, 1)] + [(2, 2), (2, 4)]


class Quality:
    """What a row says, for any search of the queries."""

    def __init__(self, ids, document_ids, qrels):
        self._ids, self._documents, self._qrels = ids, document_ids, qrels
        self.exact = None

    def row(self, name: str, size: int, seconds: float, scores: np.ndarray, positions: np.ndarray) -> None:
        if self.exact is None:
            self.exact = positions
        found = zip(positions.tolist(), self.exact.tolist(), strict=True)
        recall = np.mean([len(set(some) & set(best)) / K for some, best in found])
        run = Run.from_top_k(self._ids, self._documents, np.where(positions == 2**31 - 1, -1, positions), scores)
        ndcg = mean_scores(run, self._qrels, ["ndcg@10"])["ndcg_at_10"]
        per_document = size / len(self._documents)
        rate = len(positions) / seconds
        print(f"{name:34} {per_document:12,.0f} {rate:10.1f} {recall:8.3f} {ndcg:8.3f}", flush=True)


def timed(search, queries) -> tuple[float, np.ndarray, np.ndarray]:
    search(queries)
    start = time.perf_counter()
    scores, positions = search(queries)
    return time.perf_counter() - start, scores, positions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent / "data" / "xquad-en")
    parser.add_argument("--split", default="test")
    args = parser.parse_args()
    folder, mesh = BeirFolder(args.data), device_mesh()
    model, params = load_pretrained(str(minilm()), mesh)
    encoder = TextEncoder(replace(model, config=replace(model.config, heads=("multi_vector",))), params, mesh)
    ids, texts = judged(folder, args.split)
    quality = Quality(ids, list(store_ids(folder.corpus)), folder.qrels(args.split))
    queries = encoder.queries(texts)
    print(f"{len(ids)} queries, {len(folder.corpus)} passages of {args.data.name}")
    print(f"{'search':34} {'bytes/passage':>12} {'queries/s':>10} {'recall':>8} {'nDCG@10':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in ("float32", "int8"):
            stored = open_store(encode_corpus(encoder, folder.corpus, f"{scratch}/{dtype}", dtype=dtype), encoder)
            search = ExactSearch("multi_vector", stored, mesh, K)
            size = stored.nbytes(("tokens", "token_scales"))
            quality.row(f"exact, {dtype}", size, *timed(search, queries))
        stored = open_store(f"{scratch}/float32", encoder)
        for nbits, pool_factor in COMPRESSED:
            place = f"{scratch}/{nbits}-{pool_factor}"
            build_plaid(stored, place, PlaidSettings(nbits=nbits, pool_factor=pool_factor))
            index = PlaidIndex.load(place)
            for words, pruning in PRUNINGS.items():
                pooled = f", pooled {pool_factor}" if pool_factor > 1 else ""
                name = f"{nbits} bits{pooled}, {words}"
                quality.row(name, index.num_bytes, *timed(PlaidSearch(index, mesh, K, pruning), queries))


if __name__ == "__main__":
    main()
