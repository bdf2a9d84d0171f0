"""Every text of XQuAD and Cranfield, embedded by sentence-transformers and by us with the same published weights."""

import os
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import jaxret
from tests.parity.minilm import XQUAD, embedded, ndcg, weights

CRANFIELD = os.environ.get("JAXRET_CRANFIELD", "")
NO_CRANFIELD = "its licence is not stated, so it is not here: name a BEIR folder of it in JAXRET_CRANFIELD"


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(XQUAD, id="xquad-en"),
        pytest.param(Path(CRANFIELD), id="cranfield", marks=pytest.mark.skipif(not CRANFIELD, reason=NO_CRANFIELD)),
    ],
)
def test_vectors_and_ranking(folder: Path):
    theirs = SentenceTransformer(str(weights()), device="cpu")
    ours = jaxret.from_pretrained(weights(), precision="float32")
    expected = embedded(folder, theirs.encode)
    found = embedded(folder, lambda texts: ours.encode_document(texts).dense)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)
    assert abs(ndcg(folder, *found) - ndcg(folder, *expected)) < 1e-6
