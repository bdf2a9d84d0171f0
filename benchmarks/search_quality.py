"""Quality, bytes and queries a second of exact and compressed MaxSim on one BEIR folder.

    .venv/bin/python benchmarks/search_quality.py --data data/xquad-en --split test

Token vectors of all-MiniLM-L6-v2 (384 numbers; no late interaction model, so compression costs it more), or of --model.
Each row is a search of all the queries in one call, the second of two timed. Recall is of the exact search's first ten.
Bytes are those of the vectors on disk. fast-plaid stands beside ours in benchmarks/plaid_vs_peer.py.
"""

import tempfile
import time

import numpy as np
from token_vectors import options, token_encoder

from jaxret.data.beir import BeirFolder
from jaxret.eval.metrics import mean_scores
from jaxret.eval.systems import judged
from jaxret.search.corpus import encode_corpus, open_store, store_ids
from jaxret.search.exact import ExactSearch
from jaxret.search.plaid.build import PlaidSettings, build_plaid
from jaxret.search.plaid.index import PlaidIndex
from jaxret.search.plaid.search import PlaidSearch
from jaxret.search.plaid.stages import UNPRUNED, Pruning, published_pruning
from jaxret.search.runs import Run

K = 10
PRUNINGS = {"published": published_pruning(K), "4 cells": Pruning(4, 0.45, 1024), "every document": UNPRUNED}
COMPRESSED = [(4, 1), (2, 1), (1, 1), (4, 2), (2, 2), (1, 2), (2, 4)]


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
        print(f"| {name} | {per_document:,.0f} | {rate:,.1f} | {recall:.3f} | {ndcg:.3f} |", flush=True)


def timed(search, queries) -> tuple[float, np.ndarray, np.ndarray]:
    search(queries)
    start = time.perf_counter()
    scores, positions = search(queries)
    return time.perf_counter() - start, scores, positions


def main() -> None:
    parser = options(__doc__, 512)
    parser.add_argument("--pruned", action="store_true", help="leave out the searches of every document")
    args = parser.parse_args()
    folder, encoder = BeirFolder(args.data), token_encoder(args.model)
    ids, texts = (part[: args.queries] for part in judged(folder, args.split))
    qrels = {query: folder.qrels(args.split)[query] for query in ids}
    quality = Quality(ids, list(store_ids(folder.corpus)), qrels)
    queries = encoder.queries(texts)
    print(f"{len(ids)} queries, {len(folder.corpus)} passages of {args.data.name}\n")
    print("| search | bytes/passage | queries/s | recall | nDCG@10 |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in ("float32", "bfloat16", "int8"):
            stored = open_store(encode_corpus(encoder, folder.corpus, f"{scratch}/{dtype}", dtype=dtype), encoder)
            search = ExactSearch("multi_vector", stored, encoder.mesh, K)
            quality.row(f"exact, {dtype}", stored.nbytes(("tokens", "token_scales")), *timed(search, queries))
        stored = open_store(f"{scratch}/float32", encoder)
        for nbits, pool_factor in COMPRESSED:
            place = f"{scratch}/{nbits}-{pool_factor}"
            build_plaid(stored, place, PlaidSettings(nbits=nbits, pool_factor=pool_factor))
            index = PlaidIndex.load(place)
            for words, pruning in PRUNINGS.items():
                if pruning.ncells or not args.pruned:
                    pooled = f", pooled {pool_factor}" if pool_factor > 1 else ""
                    search = PlaidSearch(index, encoder.mesh, K, pruning)
                    quality.row(f"{nbits} bits{pooled}, {words}", index.num_bytes, *timed(search, queries))


if __name__ == "__main__":
    main()
