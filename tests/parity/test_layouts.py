"""Whole checkpoints in published layouts, from texts to vectors, against what their libraries made of them."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.data.text import passage_ids, query_ids
from jaxret.errors import InputError
from jaxret.ops.maxsim import RULES
from jaxret.ops.vectors import unit
from jaxret.runtime.layouts import describe, load_pretrained
from jaxret.runtime.mesh import device_mesh
from tests.parity.cases import cases, names
from tests.parity.embedded import embedded
from tests.parity.tolerances import MODEL

PUBLISHED = cases("sentence_transformers", "sparse", "multi_vector", "colbert", "bge_m3", "pylate")
LAYOUT_OF = {"sparse": "sentence_transformers", "multi_vector": "sentence_transformers"}


@pytest.fixture(scope="module")
def loaded():
    """Each case's model and parameters, loaded once."""
    found = {}

    def load(case):
        if case.name not in found:
            found[case.name] = load_pretrained(case.folder, device_mesh())
        return found[case.name]

    return load


def assert_close(ours, theirs, mask=...):
    assert ours.shape == theirs.shape
    assert np.abs(theirs[mask]).max() > 0.1
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=MODEL * np.abs(theirs[mask]).max(), rtol=0)


def rows_of(case, side):
    """The golden's ids, one list a text."""
    ids, mask = case.golden[f"{side}_token_ids"], case.golden[f"{side}_attention_mask"]
    if side == "query" and f"{side}_mask" in case.golden and case.layout != "bge_m3":
        mask = mask | case.golden[f"{side}_mask"]
    return [row[kept.astype(bool)].tolist() for row, kept in zip(ids, mask, strict=True)]


@pytest.mark.parametrize("case", PUBLISHED, ids=names(PUBLISHED))
def test_layouts_are_recognised(case):
    assert describe(case.folder).model.origin["layout"] == LAYOUT_OF.get(case.layout, case.layout)


@pytest.mark.parametrize("case", PUBLISHED, ids=names(PUBLISHED))
def test_texts_become_the_same_ids(case, loaded):
    model, _ = loaded(case)
    assert query_ids(model.tokenizer, model.text, case.about["queries"]) == rows_of(case, "query")
    assert passage_ids(model.tokenizer, model.text, case.about["documents"]) == rows_of(case, "document")


@pytest.mark.parametrize("side", ["query", "document"])
@pytest.mark.parametrize("case", PUBLISHED, ids=names(PUBLISHED))
def test_texts_become_the_same_vectors(case, side, loaded):
    found, golden = embedded(*loaded(case), case.about, side), case.golden
    compared = 0
    if f"{side}_dense" in golden:
        assert_close(found.dense, golden[f"{side}_dense"])
        compared += 1
    if f"{side}_sparse" in golden:
        assert_close(np.asarray(found.lexical.spread()), golden[f"{side}_sparse"])
        compared += 1
    if f"{side}_lexical" in golden:
        assert_close(found.lexical.weights, golden[f"{side}_lexical"])
        compared += 1
    if f"{side}_tokens" in golden:
        first = 1 if case.layout == "bge_m3" else 0  # the golden leaves [CLS] out
        assert not found.mask[:, :first].any()
        mask = golden[f"{side}_mask"].astype(bool)
        np.testing.assert_array_equal(found.mask[:, first:], mask)
        assert_close(found.tokens[:, first:], golden[f"{side}_tokens"], mask)
        compared += 1
    assert compared == len(loaded(case)[0].config.heads)


LATE = [case for case in PUBLISHED if {"scores", "multi_vector_scores"} & set(case.golden)]


@pytest.mark.parametrize("case", LATE, ids=names(LATE))
def test_scores_of_late_interaction_follow_the_library(case, loaded):
    q, d = (embedded(*loaded(case), case.about, side) for side in ("query", "document"))
    rule = RULES[loaded(case)[0].config.maxsim]
    theirs = case.golden.get("scores", case.golden.get("multi_vector_scores"))
    assert_close(np.asarray(rule(*map(jnp.asarray, (q.tokens, d.tokens, q.mask, d.mask)))), theirs)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("st6_without_prompt", {"pooling_mode": "weightedmean"}, "include_prompt: false, .* with weightedmean"),
        ("st5_minilm", {"include_prompt": False, "pooling_mode_cls_token": True}, "include_prompt: false, .* with cls"),
        ("st6_minilm", {"pooling_mode": ["mean", "median"]}, r"pooling_mode: mean \+ median"),
        ("st6_minilm", {"pooling_mode": []}, "pooling_mode: none"),
    ],
)
def test_poolings_that_we_do_not_do_are_refused(copied, name, changes, message):
    with pytest.raises(InputError, match=rf"1_Pooling/config.json: {message}"):
        describe(copied(name, {"1_Pooling/config.json": changes}))


@pytest.mark.parametrize("strategy", ["max", None])
def test_unknown_query_expansion_is_refused(copied, strategy):
    settings = {"query_expansion": {"strategy": strategy, "length": 16}}
    folder = copied("mv6_modernbert", {"sentence_bert_config.json": settings})
    with pytest.raises(InputError, match=r"query_expansion: .*strategy of fixed, min"):
        describe(folder)


@pytest.mark.parametrize("name", ["st6_minilm", "st6_prompts"])
def test_a_shortened_vector_is_the_first_numbers_normalised(name, loaded):
    (case,) = [case for case in PUBLISHED if case.name == name]
    shortened = load_pretrained(case.folder, device_mesh(), truncate=8)
    theirs = np.asarray(unit(jnp.asarray(case.golden["document_dense_8"])))
    assert_close(embedded(*shortened, case.about, "document").dense, theirs)


def test_attended_expansion(copied, loaded):
    (case,) = [case for case in PUBLISHED if case.name == "colbert_bert"]
    folder = copied("colbert_bert", {"artifact.metadata": {"attend_to_mask_tokens": True}})
    found = embedded(*load_pretrained(folder, device_mesh()), case.about, "query")
    assert_close(found.tokens, case.golden["attended_query_tokens"])
    assert np.abs(found.tokens - embedded(*loaded(case), case.about, "query").tokens).max() > 0.01
