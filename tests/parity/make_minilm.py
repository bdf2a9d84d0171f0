"""Writes what sentence-transformers makes of XQuAD with all-MiniLM-L6-v2: python -m tests.parity.make_minilm."""

from __future__ import annotations

import numpy as np
from sentence_transformers import SentenceTransformer

from tests.parity.minilm import EVERY, GOLDEN, XQUAD, embedded, ndcg, weights


def main() -> None:
    """Writes every n-th query's and passage's vector, and the nDCG@10 of all."""
    model = SentenceTransformer(str(weights()), device="cpu")
    queries, passages = embedded(XQUAD, model.encode)
    some = {"queries": queries[:: EVERY["queries"]], "passages": passages[:: EVERY["passages"]]}
    np.savez_compressed(GOLDEN, **some, ndcg=ndcg(XQUAD, queries, passages))


if __name__ == "__main__":
    main()
