"""What we save, opened by sentence-transformers 6, transformers and torch themselves.

Stanford's ColBERT and FlagEmbedding, which are not installed, are stood in for by their formulas in plain torch
(`make_late_interaction.py`, `make_bge_m3.py`), run on the saved folder; sentence-transformers opens both layouts too.
Stanford's library itself (colbert-ai 0.2.22, patched to run with transformers 5) was run once on both saved
cases: equal masks, and vectors within 5e-7 of the goldens.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from transformers import AutoModel, AutoModelForMaskedLM

from jaxret.data.pretrained_tokenizer import PretrainedTokenizer
from jaxret.data.skiplists import colbert_skiplist, words_skiplist
from jaxret.data.text import passage_ids
from jaxret.nn.heads import LMHeadConfig, Projection
from jaxret.runtime.layouts import load_pretrained
from jaxret.runtime.layouts.settings import plain_text
from jaxret.runtime.mesh import device_mesh
from tests.parity.cases import Case, cases, names
from tests.parity.embedded import embedded
from tests.parity.make_bge_m3 import side as bge_m3_side
from tests.parity.make_late_interaction import colbert_goldens
from tests.parity.round_trips import EAGER, TEXTS_OF, assert_close, assert_same_tokens, fresh, resaved

TEXTS = {"queries": ["where is the cat?", "  rain "], "documents": ["The cat sleeps, alone.", "rain [MASK] Rain!", "x"]}
DENSE = cases("sentence_transformers")
SPARSE = cases("sparse")
MULTI_VECTOR = cases("multi_vector")
LATE = cases("colbert", "pylate")
COLBERT = cases("colbert")
BODIES = cases("transformers")
MASKED = cases("masked_lm")


def encoder(library, side):
    return library.encode_query if side == "query" else library.encode_document


def assert_same_dense(saved, texts):
    model, params, folder = saved
    theirs = SentenceTransformer(str(folder), device="cpu", model_kwargs=EAGER)
    for side, key in TEXTS_OF.items():
        assert_close(embedded(model, params, texts, side).dense, encoder(theirs, side)(list(texts[key])))
    return theirs


def assert_same_sparse(saved, texts):
    model, params, folder = saved
    theirs = SparseEncoder(str(folder), device="cpu", model_kwargs=EAGER)
    for side, key in TEXTS_OF.items():
        found = np.asarray(embedded(model, params, texts, side).lexical.spread())
        assert_close(found, encoder(theirs, side)(texts[key]).to_dense())


def token_vectors(folder):
    theirs = MultiVectorEncoder(str(folder), device="cpu", model_kwargs=EAGER)
    return lambda texts, side: encoder(theirs, side)(list(texts), convert_to_numpy=True)


@pytest.mark.parametrize("case", DENSE, ids=names(DENSE))
def test_dense_folders_are_opened_again(case, tmp_path):
    saved = resaved(case, tmp_path / "saved")
    theirs = assert_same_dense(saved, case.about)
    original = SentenceTransformer(str(case.folder), device="cpu", model_kwargs=EAGER)
    for name in ("prompts", "max_seq_length", "similarity_fn_name"):
        assert getattr(theirs, name) == getattr(original, name)
    assert_close(theirs.encode_document(case.about["documents"]), original.encode_document(case.about["documents"]))


@pytest.mark.parametrize("case", SPARSE, ids=names(SPARSE))
def test_sparse_folders_are_opened_again(case, tmp_path):
    texts = {key: [text.strip() for text in case.about[key]] for key in TEXTS}  # version 6 strips no longer
    assert_same_sparse(resaved(case, tmp_path / "saved"), texts)


@pytest.mark.parametrize("case", MULTI_VECTOR, ids=names(MULTI_VECTOR))
def test_multi_vector_folders_are_opened_again(case, tmp_path):
    saved = resaved(case, tmp_path / "saved")
    assert_same_tokens(saved, case.about, token_vectors(saved[2]))


@pytest.mark.parametrize("case", LATE, ids=names(LATE))
def test_late_interaction_is_opened_again(case, tmp_path):
    """Against the original opened by the same library, which puts [UNK] on no skip-list, as PyLate and Stanford do."""
    *_, folder = resaved(case, tmp_path / "saved")
    for side, key in TEXTS_OF.items():
        rows = [token_vectors(place)(case.about[key], side) for place in (folder, case.folder)]
        for one, other in zip(*rows, strict=True):
            assert_close(one, other)


@pytest.mark.parametrize("case", COLBERT, ids=names(COLBERT))
def test_stanfords_formulas_on_a_saved_folder(case, tmp_path):
    *_, folder = resaved(case, tmp_path / "saved")
    found = colbert_goldens(folder, {key: case.about[key] for key in TEXTS})
    assert found.keys() == case.golden.keys()
    for name, array in found.items():
        if array.dtype == np.float32:
            assert_close(array, case.golden[name])
        else:
            np.testing.assert_array_equal(array, case.golden[name])
    assert json.loads((folder / "artifact.metadata").read_text()) == json.loads(
        (case.folder / "artifact.metadata").read_text()
    )


def test_bge_m3_formulas_on_a_saved_folder(tmp_path):
    case = Case("bge_m3")
    model, params, folder = resaved(case, tmp_path / "saved")
    for side, key in TEXTS_OF.items():
        ours, theirs = embedded(model, params, case.about, side), bge_m3_side(folder, side, case.about[key])
        assert_close(ours.dense, theirs[f"{side}_dense"])
        assert_close(ours.lexical.weights, theirs[f"{side}_lexical"])
        kept = theirs[f"{side}_mask"].astype(bool)
        np.testing.assert_array_equal(ours.mask[:, 1:], kept)
        assert_close(ours.tokens[:, 1:][kept], theirs[f"{side}_tokens"][kept])


def test_bge_m3_is_opened_again_as_a_dense_model(tmp_path):
    assert_same_dense(resaved(Case("bge_m3"), tmp_path / "saved"), Case("bge_m3").about)


def outputs(theirs, case):
    """What a model of transformers makes of a case's ids, without padding: `[n d]`."""
    assert theirs.dtype == torch.float32
    mask = case.golden["attention_mask"]
    ids = torch.from_numpy(np.where(mask, case.golden["token_ids"], 0)).long()
    with torch.no_grad():
        return theirs(input_ids=ids, attention_mask=torch.from_numpy(mask))[0].numpy()[mask.astype(bool)]


@pytest.mark.parametrize("case", BODIES, ids=names(BODIES))
def test_bare_models_are_opened_again(case, tmp_path):
    settings = {"causal": False} if case.about["bidirectional"] else {}
    model, _, folder = resaved(case, tmp_path / "saved", **settings)
    theirs = AutoModel.from_pretrained(folder, attn_implementation="eager")
    assert_close(outputs(theirs, case), case.golden["states"][case.golden["attention_mask"].astype(bool)])
    assert model.origin["family"] == theirs.config.model_type


@pytest.mark.parametrize("case", MASKED, ids=names(MASKED))
def test_language_models_are_opened_again(case, tmp_path):
    *_, folder = resaved(case, tmp_path / "saved", heads=("lexical",))
    theirs = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager")
    assert_close(outputs(theirs, case), case.golden["logits"][case.golden["attention_mask"].astype(bool)])


FRESH = ["bert", "xlm_roberta", "modernbert", "xlm_roberta_xl", "qwen3"]
PADLESS = ["mistral_window", "mistral_bidirectional"]  # sentence-transformers cannot pad with their tokenisers


@pytest.mark.parametrize("name", FRESH)
def test_a_fresh_dense_model_is_opened(name, random_params, tmp_path):
    layers = (Projection(12, use_bias=True, activation="relu", residual=True), Projection(12, residual=True))
    text = plain_text(20, query_max_len=9, query_prefix="query: ", passage_prefix="rain ")
    settings = {"heads": ("dense",), "similarity": "dot", "dense_layers": layers, "normalize": name == "bert"}
    settings |= {"pooling": ("mean", "cls", "last") if name == "qwen3" else "mean", "pool_prompt": name != "modernbert"}
    saved = fresh(name, "sentence_transformers", tmp_path / "saved", random_params, text, **settings)
    assert assert_same_dense(saved, TEXTS).similarity_fn_name == "dot"
    model, _, folder = saved
    tokenizer = PretrainedTokenizer.load(folder)
    assert load_pretrained(folder, device_mesh())[0] == dataclasses.replace(model, tokenizer=tokenizer)


@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_a_fresh_sparse_model_is_opened(name, random_params, tmp_path):
    head = LMHeadConfig(transform_bias=name != "modernbert")
    settings = {"heads": ("lexical",), "splade_pooling": "sum", "splade_saturation": "log1p_twice", "lm_head": head}
    assert_same_sparse(fresh(name, "sentence_transformers", tmp_path / "saved", random_params, **settings), TEXTS)


@pytest.mark.parametrize("attend", [False, True])
@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_a_fresh_multi_vector_model_is_opened(name, attend, random_params, tmp_path):
    expansion = {"query_max_len": 11, "query_expansion": True, "expansion_len": 6 if name == "bert" else 0}
    text = plain_text(18, query_prefix="cat ", passage_prefix="the ", **expansion)
    words = words_skiplist(PretrainedTokenizer.load(Case(name).folder), [".", "!", ","])
    assert words
    settings = {"heads": ("multi_vector",), "token_layers": (Projection(9, use_bias=True, activation="tanh"), 6)}
    settings |= {"skip_ids": tuple(sorted(words)), "attend_to_expansion": attend}
    saved = fresh(name, "sentence_transformers", tmp_path / "saved", random_params, text, **settings)
    texts = {"queries": TEXTS["queries"], "documents": ["The cat sleeps, alone.", "rain. Rain!", "x"]}
    assert_same_tokens(saved, texts, token_vectors(saved[2]))


def test_a_fresh_colbert_is_opened(random_params, tmp_path):
    markers = {"query_marker": "[unused0]", "passage_marker": "[unused1]"}
    text = plain_text(18, query_max_len=11, query_expansion=True, **markers)
    skipped = tuple(sorted(colbert_skiplist(PretrainedTokenizer.load(Case("colbert_bert").folder))))
    settings = {"heads": ("multi_vector",), "token_layers": (6,), "skip_ids": skipped, "attend_to_expansion": False}
    saved = fresh("colbert_bert", "colbert", tmp_path / "saved", random_params, text, **settings)
    texts = {"queries": TEXTS["queries"], "documents": ["The cat sleeps, alone.", "rain rain.", "sea"]}
    rows = passage_ids(saved[0].tokenizer, text, texts["documents"])
    assert not any(saved[0].tokenizer.unk_id in row for row in rows)
    assert_same_tokens(saved, texts, token_vectors(saved[2]))


@pytest.mark.parametrize("name", FRESH + PADLESS)
def test_a_fresh_encoder_is_opened(name, random_params, tmp_path):
    both = name == "mistral_bidirectional"
    encoder = load_pretrained(Case(name).folder, device_mesh(), **({"causal": False} if both else {}))[0].config.encoder
    settings = {"heads": ("dense",), "pooling": "cls" if both else "last", "normalize": False, "encoder": encoder}
    model, params, folder = fresh(name, "huggingface", tmp_path / "saved", random_params, **settings)
    theirs = AutoModel.from_pretrained(folder, attn_implementation="eager")
    rows = passage_ids(model.tokenizer, model.text, TEXTS["documents"])
    for row, vector in zip(rows, embedded(model, params, TEXTS, "document").dense, strict=True):
        with torch.no_grad():
            assert_close(vector, theirs(input_ids=torch.tensor([row])).last_hidden_state[0, 0 if both else -1])
    assert jax.tree.structure(load_pretrained(folder, device_mesh())[1]) == jax.tree.structure(params)
