"""The published BGE-M3 itself, where its weights are: the numbers of its README's examples."""

import os

import numpy as np
import pytest

import jaxret

FOLDER = os.environ.get("JAXRET_BGE_M3", "")
TOLERANCE = 2e-3  # the README's numbers were computed in float16
QUERIES = ["What is BGE M3?", "Defination of BM25"]
DOCUMENTS = [
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.",
    "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query terms "
    "appearing in each document",
]
WEIGHTS = {"What": 0.08356, "is": 0.0814, "B": 0.1296, "GE": 0.252, "M": 0.1702, "3": 0.2695, "?": 0.04092}


@pytest.mark.skipif(not FOLDER, reason="name the folder of BAAI/bge-m3 in JAXRET_BGE_M3")
def test_the_published_numbers():
    model = jaxret.from_pretrained(FOLDER, precision="float32")
    queries, documents = model.encode_query(QUERIES), model.encode_document(DOCUMENTS)
    scores = {mode: model.similarity(queries, documents, mode) for mode in ("dense", "lexical", "multi_vector")}
    np.testing.assert_allclose(scores["dense"], [[0.6265, 0.3477], [0.3499, 0.678]], atol=TOLERANCE)
    np.testing.assert_allclose(scores["lexical"][0, 0], 0.1955, atol=TOLERANCE)
    np.testing.assert_allclose(scores["multi_vector"][0], [0.7797, 0.4620], atol=TOLERANCE)
    first = dict(zip(queries.lexical.ids[0].tolist(), queries.lexical.weights[0].tolist(), strict=True))
    pieces = {piece: {model.model.tokenizer.token_id(space + piece) for space in ("", "▁")} for piece in WEIGHTS}
    for piece, expected in WEIGHTS.items():
        (weight,) = [first[token] for token in pieces[piece] if token in first]
        np.testing.assert_allclose(weight, expected, atol=TOLERANCE, err_msg=piece)
