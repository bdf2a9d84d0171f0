"""The Python interface on published layouts: texts in, PyTorch's numbers out."""

import numpy as np
import pytest

import jaxret
from jaxret.errors import InputError
from tests.parity.cases import cases, names
from tests.parity.tolerances import MODEL

CASES = cases("sentence_transformers", "sparse", "multi_vector", "colbert", "pylate", "bge_m3")
ONE = (1, 1, 1)


@pytest.fixture(scope="module")
def one_device():
    import jax

    from jaxret.runtime.mesh import device_mesh

    return device_mesh(ONE, jax.devices()[:1])


def embedder(case, mesh):
    from jaxret.runtime.layouts import load_pretrained
    from jaxret.search.embedder import Embedder

    return Embedder(*load_pretrained(case.folder, mesh), mesh)


def close(ours, theirs, name):
    assert ours.shape == theirs.shape, name
    np.testing.assert_allclose(ours, theirs, atol=MODEL * np.abs(theirs).max(), rtol=0, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_published_layouts(case, one_device):
    model, golden, found = embedder(case, one_device), case.golden, {}
    for side, encode in (("query", model.encode_query), ("document", model.encode_document)):
        texts = case.about["queries" if side == "query" else "documents"]
        found[side] = encode(texts)
        if f"{side}_dense" in golden:
            close(found[side].dense, golden[f"{side}_dense"], f"{side} dense")
        if f"{side}_sparse" in golden:
            close(np.asarray(found[side].lexical.spread()), golden[f"{side}_sparse"], f"{side} sparse")
        if f"{side}_tokens" in golden:
            for row, mask in enumerate(golden[f"{side}_mask"].astype(bool)):
                ours = found[side].tokens[row][found[side].mask[row]]
                close(ours, golden[f"{side}_tokens"][row][mask], f"{side} tokens of {row}")
    for name, mode in (("scores", "multi_vector"), ("similarity", None), ("dense_scores", "dense")):
        if name in golden:
            close(model.similarity(found["query"], found["document"], mode), golden[name], name)


def test_bge_m3_scores(one_device):
    (case,) = cases("bge_m3")
    model = embedder(case, one_device)
    q, d = model.encode_query(case.about["queries"]), model.encode_document(case.about["documents"])
    for mode in ("dense", "lexical", "multi_vector"):
        close(model.similarity(q, d, mode), case.golden[f"{mode}_scores"], mode)
    heads = ("dense", "lexical", "multi_vector")
    weights = case.about["hybrid_weights"]
    weights = weights if isinstance(weights, dict) else dict(zip(heads, weights, strict=True))
    close(model.similarity(q, d, "hybrid", weights=weights), case.golden["hybrid_scores"], "hybrid")


def test_order_batches_and_titles(one_device):
    case = next(case for case in CASES if case.name == "st6_minilm")
    model, texts = embedder(case, one_device), case.about["documents"]
    forward = model.encode_document(texts).dense
    np.testing.assert_allclose(model.encode_document(texts[::-1], batch_size=2).dense[::-1], forward, atol=1e-6)
    titled = model.encode_document([{"title": "a", "text": "b c"}]).dense
    np.testing.assert_allclose(titled, model.encode_document("a b c").dense, atol=1e-6)
    assert len(model.encode_query([]).dense) == 0


def test_refuses_a_document_without_text(one_device):
    case = next(case for case in CASES if case.name == "st6_minilm")
    with pytest.raises(InputError, match=r"document 0: is .* Give \{\"title\""):
        embedder(case, one_device).encode_document([{"title": "x"}])


def test_a_model_without_the_mode(one_device):
    case = next(case for case in CASES if case.name == "st6_minilm")
    model = embedder(case, one_device)
    q = model.encode_query(["a"])
    with pytest.raises(InputError, match=r"the model has no 'lexical'. Choose one of dense, hybrid"):
        model.similarity(q, q, "lexical")


def test_on_eight_devices_from_the_package():
    case = next(case for case in CASES if case.name == "st6_minilm")
    found = jaxret.from_pretrained(case.folder).encode_document(case.about["documents"])
    close(found.dense, case.golden["document_dense"], "dense")
