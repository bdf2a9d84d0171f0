"""What we save, opened by sentence-transformers, transformers and torch themselves."""

import dataclasses
import json
from pathlib import Path

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
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts import load_pretrained, save_pretrained
from jaxret.runtime.layouts.settings import plain_text
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import Model
from tests.parity.cases import Case, cases, names
from tests.parity.embedded import embedded

TOLERANCE = 1e-5
EAGER = {"attn_implementation": "eager"}
TEXTS = {"queries": ["where is the cat?", "  rain "], "documents": ["The cat sleeps, alone.", "rain [MASK] Rain!", "x"]}


def assert_close(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape and np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * np.abs(theirs).max(), rtol=0)


def saved(case: Case, folder: Path, **settings):
    """A case, loaded and saved again, and the model and parameters in between."""
    model, params = load_pretrained(case.folder, device_mesh(), **settings)
    return model, params, save_pretrained(folder, model, params)


def assert_same_dense(model, params, folder, texts):
    theirs = SentenceTransformer(str(folder), device="cpu", model_kwargs=EAGER)
    assert_close(embedded(model, params, texts, "query").dense, theirs.encode_query(texts["queries"]))
    assert_close(embedded(model, params, texts, "document").dense, theirs.encode_document(texts["documents"]))
    assert theirs.similarity_fn_name == model.config.similarity
    return theirs


def assert_same_sparse(model, params, folder, texts):
    theirs = SparseEncoder(str(folder), device="cpu", model_kwargs=EAGER)
    for side, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        found = np.asarray(embedded(model, params, texts, side).lexical.spread())
        assert_close(found, encode(texts["queries" if side == "query" else "documents"]).to_dense())
    return theirs


def assert_same_tokens(model, params, folder, texts):
    theirs = MultiVectorEncoder(str(folder), device="cpu", model_kwargs=EAGER)
    for side, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        ours = embedded(model, params, texts, side)
        rows = encode(texts["queries" if side == "query" else "documents"], convert_to_numpy=True)
        for vectors, mask, row in zip(ours.tokens, ours.mask, rows, strict=True):
            assert_close(vectors[mask], row)
    return theirs


DENSE = [case for case in cases("sentence_transformers") if case.name != "st6_without_prompt"]
SPARSE = cases("sparse")
LATE = [*cases("multi_vector", family="bert"), *cases("colbert", "pylate")]


@pytest.mark.parametrize("case", DENSE, ids=names(DENSE))
def test_dense_folders_are_opened_again(case, tmp_path):
    theirs = assert_same_dense(*saved(case, tmp_path / "saved"), {key: case.about[key] for key in TEXTS})
    original = json.loads((case.folder / "config_sentence_transformers.json").read_text())
    assert theirs.prompts == original["prompts"]
    assert theirs.max_seq_length == SentenceTransformer(str(case.folder), device="cpu").max_seq_length


@pytest.mark.parametrize("case", SPARSE, ids=names(SPARSE))
def test_sparse_folders_are_opened_again(case, tmp_path):
    texts = {key: [text.strip() for text in case.about[key]] for key in TEXTS}  # version 6 strips no longer
    assert_same_sparse(*saved(case, tmp_path / "saved"), texts)


@pytest.mark.parametrize("case", LATE, ids=names(LATE))
def test_late_interaction_is_opened_again(case, tmp_path):
    """Against the original opened by the same library, which puts [UNK] on no skip-list, as PyLate and Stanford do."""
    _, _, folder = saved(case, tmp_path / "saved")
    ours, theirs = (MultiVectorEncoder(str(place), device="cpu", model_kwargs=EAGER) for place in (folder, case.folder))
    assert ours.prompts == theirs.prompts
    for texts, name in ((case.about["queries"], "encode_query"), (case.about["documents"], "encode_document")):
        rows = [getattr(library, name)(texts, convert_to_numpy=True) for library in (ours, theirs)]
        for one, other in zip(*rows, strict=True):
            assert_close(one, other)


def test_bge_m3_is_opened_again_by_torch_and_as_a_dense_model(tmp_path):
    case = Case("bge_m3")
    model, params, folder = saved(case, tmp_path / "saved")
    for name, width in (("colbert_linear", 16), ("sparse_linear", 1)):
        found, original = (torch.load(place / f"{name}.pt", weights_only=True) for place in (folder, case.folder))
        torch.nn.Linear(16, width).load_state_dict(found)
        assert found.keys() == original.keys()
        for key in found:
            assert torch.equal(found[key], original[key].float())
    assert_same_dense(
        dataclasses.replace(model, config=dataclasses.replace(model.config, similarity="cosine")),
        params,
        folder,
        case.about,
    )


BODIES = cases("transformers")


@pytest.mark.parametrize("case", BODIES, ids=names(BODIES))
def test_bare_models_are_opened_again(case, tmp_path):
    settings = {"causal": False} if case.about["bidirectional"] else {}
    model, _, folder = saved(case, tmp_path / "saved", **settings)
    theirs = AutoModel.from_pretrained(folder, attn_implementation="eager")
    assert theirs.dtype == torch.float32
    mask = case.golden["attention_mask"]
    ids = torch.from_numpy(np.where(mask, case.golden["token_ids"], 0)).long()
    with torch.no_grad():
        states = theirs(input_ids=ids, attention_mask=torch.from_numpy(mask)).last_hidden_state.numpy()
    kept = mask.astype(bool)
    assert_close(states[kept], case.golden["states"][kept])
    assert model.origin["family"] == theirs.config.model_type


MASKED = list(cases("masked_lm"))


@pytest.mark.parametrize("case", MASKED, ids=names(MASKED))
def test_language_models_are_opened_again(case, tmp_path):
    _, _, folder = saved(case, tmp_path / "saved", heads=("lexical",))
    theirs = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager")
    mask = case.golden["attention_mask"]
    ids = torch.from_numpy(np.where(mask, case.golden["token_ids"], 0)).long()
    with torch.no_grad():
        logits = theirs(input_ids=ids, attention_mask=torch.from_numpy(mask)).logits.numpy()
    assert_close(logits[mask.astype(bool)], case.golden["logits"][mask.astype(bool)])


FRESH = ["bert", "xlm_roberta", "modernbert", "xlm_roberta_xl", "qwen3"]
PADLESS = ["mistral_window", "mistral_bidirectional"]  # sentence-transformers cannot pad with their tokenisers


def fresh(name: str, random_params, text=None, **settings):
    """A model that never was a checkpoint: an encoder of a family's shape and a tokeniser, with random parameters."""
    found, _ = load_pretrained(Case(name).folder, device_mesh())
    config = RetrieverConfig(
        found.config.encoder, mask_id=found.config.mask_id, special_ids=found.config.special_ids, **settings
    )
    model = Model(config, text or plain_text(20), PretrainedTokenizer.load(Case(name).folder))
    assert not model.origin
    return model, random_params(model.abstract_params())


@pytest.mark.parametrize("name", FRESH)
def test_a_fresh_dense_model_is_opened(name, random_params, tmp_path):
    layers = (Projection(12, use_bias=True, activation="relu"), Projection(10))
    text = plain_text(20, query_max_len=9, query_prefix="query: ", passage_prefix="rain ")
    similar = {"normalize": name == "bert", "similarity": "dot", "pooling": "mean", "heads": ("dense",)}
    model, params = fresh(name, random_params, text, dense_layers=layers, **similar)
    folder = save_pretrained(tmp_path / "saved", model, params, "sentence_transformers")
    assert_same_dense(model, params, folder, TEXTS)
    assert load_pretrained(folder, device_mesh())[0] == dataclasses.replace(
        model, tokenizer=PretrainedTokenizer.load(folder)
    )


@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_a_fresh_sparse_model_is_opened(name, random_params, tmp_path):
    head = LMHeadConfig(transform_bias=name != "modernbert")
    model, params = fresh(
        name, random_params, heads=("lexical",), lm_head=head, splade_pooling="sum", splade_saturation="log1p_twice"
    )
    folder = save_pretrained(tmp_path / "saved", model, params, "sentence_transformers")
    assert_same_sparse(model, params, folder, TEXTS)


@pytest.mark.parametrize("attend", [False, True])
@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_a_fresh_multi_vector_model_is_opened(name, attend, random_params, tmp_path):
    text = plain_text(18, query_max_len=11, query_expansion=True, query_prefix="cat ", passage_prefix="the ")
    words = words_skiplist(PretrainedTokenizer.load(Case(name).folder), [".", "!", ","])
    assert words
    settings = {"heads": ("multi_vector",), "token_layers": (Projection(9, use_bias=True, activation="tanh"), 6)}
    model, params = fresh(
        name, random_params, text, **settings, skip_ids=tuple(sorted(words)), attend_to_expansion=attend
    )
    folder = save_pretrained(tmp_path / "saved", model, params, "sentence_transformers")
    texts = TEXTS | {"documents": ["The cat sleeps, alone.", "rain. Rain!", "x"]}
    assert_same_tokens(model, params, folder, texts)


def test_a_fresh_colbert_is_opened(random_params, tmp_path):
    markers = {"query_marker": "[unused0]", "passage_marker": "[unused1]"}
    text = plain_text(18, query_max_len=11, query_expansion=True, **markers)
    skipped = tuple(sorted(colbert_skiplist(PretrainedTokenizer.load(Case("colbert_bert").folder))))
    settings = {"heads": ("multi_vector",), "token_layers": (6,), "skip_ids": skipped, "attend_to_expansion": False}
    model, params = fresh("colbert_bert", random_params, text, **settings)
    folder = save_pretrained(tmp_path / "saved", model, params, "colbert")
    texts = TEXTS | {"documents": ["The cat sleeps, alone.", "rain rain.", "sea"]}
    rows = passage_ids(model.tokenizer, model.text, texts["documents"])
    assert not any(model.tokenizer.unk_id in row for row in rows)
    assert_same_tokens(model, params, folder, texts)


@pytest.mark.parametrize("name", FRESH + PADLESS)
def test_a_fresh_encoder_is_opened(name, random_params, tmp_path):
    model, params = fresh(name, random_params, heads=("dense",), pooling="last", normalize=False)
    if name == "mistral_bidirectional":
        encoder = dataclasses.replace(model.config.encoder, causal=False)
        model = dataclasses.replace(model, config=dataclasses.replace(model.config, encoder=encoder, pooling="cls"))
    folder = save_pretrained(tmp_path / "saved", model, params, "huggingface")
    place = 0 if model.config.pooling == "cls" else -1
    theirs = AutoModel.from_pretrained(folder, attn_implementation="eager")
    rows = passage_ids(model.tokenizer, model.text, TEXTS["documents"])
    for row, vector in zip(rows, embedded(model, params, TEXTS, "document").dense, strict=True):
        with torch.no_grad():
            assert_close(vector, theirs(input_ids=torch.tensor([row])).last_hidden_state[0, place])
    assert jax.tree.structure(load_pretrained(folder, device_mesh())[1]) == jax.tree.structure(params)
