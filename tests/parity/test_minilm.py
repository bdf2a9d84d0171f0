"""The published all-MiniLM-L6-v2 on the English XQuAD, against what sentence-transformers made of it."""

import numpy as np
import pytest

import jaxret
from tests.parity.minilm import EVERY, GOLDEN, XQUAD, embedded, ndcg, weights


@pytest.mark.slow
def test_vectors_and_ranking_are_those_of_sentence_transformers():
    model = jaxret.from_pretrained(weights(), mesh_shape=(-1, 1, 1), precision="float32")
    queries, passages = embedded(XQUAD, lambda texts: model.encode_document(texts).dense)
    with np.load(GOLDEN) as golden:
        for name, ours in (("queries", queries), ("passages", passages)):
            np.testing.assert_allclose(ours[:: EVERY[name]], golden[name], atol=1e-5, rtol=0)
        assert abs(ndcg(XQUAD, queries, passages) - golden["ndcg"]) < 1e-6
        assert golden["ndcg"] > 0.9 and len(golden["queries"]) + len(golden["passages"]) == 80
