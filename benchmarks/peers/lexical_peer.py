"""One exact lexical search: scores all documents for the queries each time it is told to go.

Run by benchmarks/lexical_search.py as `python lexical_peer.py SYSTEM FOLDER K QUERIES AT_ONCE BUDGET`.
"""

import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from peak import peak_mib

from jaxret.search.store import StoredVectors, joined
from jaxret.search.vectors import Ragged, Vectors

Search = Callable[[Vectors], tuple[np.ndarray, np.ndarray]]


def whole(stored: StoredVectors) -> Vectors:
    """All documents, in memory."""
    return joined([part for _, part in stored.parts(("term_ids", "term_weights"), None, (0, 1))])


def scipy_search(stored: StoredVectors, size: int, k: int, asked: Vectors) -> Search:
    """Sparse queries times sparse documents, at the best of several batch sizes, then the best of each row."""
    from scipy.sparse import csr_array

    def matrix(vectors: Vectors) -> csr_array:
        ids, weights = vectors.needed("term_ids"), vectors.needed("term_weights")
        return csr_array((weights.values, ids.values, ids.offsets.astype(np.int32)), shape=(len(vectors), size))

    by_term, rows = matrix(whole(stored)).T.tocsr(), 0

    def search(queries: Vectors) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for first in range(0, len(queries), rows):
            product = matrix(queries.part(first, min(first + rows, len(queries)))) @ by_term
            for start, stop in zip(product.indptr[:-1], product.indptr[1:], strict=True):
                scores, documents = product.data[start:stop], product.indices[start:stop]
                best = np.argpartition(-scores, k - 1)[:k]
                order = best[np.lexsort((documents[best], -scores[best]))]
                found.append((scores[order], documents[order]))
        return tuple(map(np.stack, zip(*found, strict=True)))

    def seconds(size: int) -> float:
        nonlocal rows
        rows, start = size, time.perf_counter()
        search(asked)
        return time.perf_counter() - start

    rows = min((4, 16, 64), key=seconds)
    return search


def our_search(form: str, stored: StoredVectors, size: int, k: int, budget: float) -> Search:
    from jaxret.runtime.mesh import device_mesh
    from jaxret.search.exact import ExactSearch

    # Pair-wise search fills up the blocks of each part of a corpus, so it is given one part, in memory.
    corpus = stored if form == "by_vocabulary" else whole(stored)
    return ExactSearch("lexical", corpus, device_mesh(), k, size, memory_budget_gb=budget or None, lexical_form=form)


def main(system: str, folder: str, k: int, queries: int, at_once: int, budget: float) -> None:
    data, stored = np.load(Path(folder) / "queries.npz"), StoredVectors(folder)
    asked = Vectors(None, None, *(Ragged(data[name], data["offsets"]) for name in ("term_ids", "term_weights")))
    size = int(data["size"])
    start = time.perf_counter()
    search = (
        our_search(system, stored, size, k, budget)
        if system != "scipy"
        else scipy_search(stored, size, k, asked.part(0, at_once))
    )
    opened = time.perf_counter() - start
    batches = [asked.part(first, first + at_once) for first in range(0, queries, at_once)]
    scores = np.concatenate([search(batch)[0] for batch in batches])
    print(f"ready opened in {opened:.1f} s, scores {hashlib.sha256(scores.tobytes()).hexdigest()[:8]}", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        for batch in batches:
            search(batch)
        seconds = time.perf_counter() - start
        print(seconds, peak_mib(), flush=True)


if __name__ == "__main__":
    name, path, *numbers, gigabytes = sys.argv[1:]
    main(name, path, *map(int, numbers), float(gigabytes))
