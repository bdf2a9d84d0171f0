"""Exact search beside the scorers of sentence-transformers 6."""

import numpy as np
import pytest
import torch
from sentence_transformers import util

from jaxret.runtime.mesh import device_mesh
from jaxret.search.exact import ExactSearch
from jaxret.search.vectors import Ragged, Vectors
from tests.parity.ragged import in_order, searched, token_vectors, unit
from tests.parity.tolerances import LAYER


def test_maxsim():
    queries, documents = token_vectors()
    theirs = util.maxsim(*([torch.from_numpy(row) for row in rows] for rows in (queries, documents))).numpy()
    assert (theirs < 0).any(), "no score tells zeros at padding from none"
    np.testing.assert_allclose(searched(queries, documents), theirs, atol=LAYER)


def test_dense_results_are_those_of_semantic_search():
    queries, documents = unit((20, 64), 0), unit((1000, 64), 1)
    hits = util.semantic_search(torch.from_numpy(queries), torch.from_numpy(documents), top_k=10)
    scores, positions = ExactSearch("dense", Vectors(documents), device_mesh(), 10)(Vectors(queries))
    np.testing.assert_array_equal(positions, [[hit["corpus_id"] for hit in row] for row in hits])
    np.testing.assert_allclose(scores, [[hit["score"] for hit in row] for row in hits], atol=LAYER)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_lexical_scores():
    random = np.random.default_rng(2)
    dense = [np.where(random.random((n, 50)) < 0.2, random.random((n, 50)), 0).astype(np.float32) for n in (6, 80)]
    theirs = util.dot_score(*(torch.from_numpy(x).to_sparse() for x in dense)).numpy()

    def vectors(rows: np.ndarray) -> Vectors:
        ids = [np.flatnonzero(row).astype(np.int32) for row in rows]
        weights = [row[places] for row, places in zip(rows, ids, strict=True)]
        return Vectors(term_ids=Ragged.from_rows(ids), term_weights=Ragged.from_rows(weights))

    search = ExactSearch("lexical", vectors(dense[1]), device_mesh(), 80, 50)
    np.testing.assert_allclose(in_order(*search(vectors(dense[0]))), theirs, atol=LAYER)
