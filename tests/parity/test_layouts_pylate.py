"""What we save, opened by PyLate and by sentence-transformers 5."""

import json

import numpy as np
import pytest
from pylate import models
from sentence_transformers import SentenceTransformer, SparseEncoder

from jaxret.data.pretrained_tokenizer import PretrainedTokenizer
from jaxret.data.skiplists import words_skiplist
from jaxret.nn.heads import Projection
from jaxret.runtime.layouts.settings import plain_text
from tests.parity.cases import Case, cases, names
from tests.parity.embedded import embedded
from tests.parity.round_trips import EAGER, TEXTS_OF, assert_close, assert_same_tokens, fresh, resaved

LATE = cases("pylate", "colbert")


def opened(folder):
    return models.ColBERT(str(folder), device="cpu", model_kwargs=EAGER)


def token_vectors(theirs):
    def encoded(texts, side):
        prompt = {"prompt_name": side} if theirs.prompts else {}
        return theirs.encode(list(texts), is_query=side == "query", **prompt)

    return encoded


@pytest.mark.parametrize("case", LATE, ids=names(LATE))
def test_late_interaction_is_opened_again(case, tmp_path):
    saved = resaved(case, tmp_path / "saved")
    theirs, original = opened(saved[2]), opened(case.folder)
    assert_same_tokens(saved, case.about, token_vectors(theirs))
    for name in ("query_prefix", "document_prefix", "query_length", "document_length", "skiplist_words"):
        assert getattr(theirs, name) == getattr(original, name)


def test_a_dense_folder_of_version_5_is_opened_by_it(tmp_path):
    case = Case("st5_minilm")
    model, params, folder = resaved(case, tmp_path / "saved")
    theirs = SentenceTransformer(str(folder), device="cpu", model_kwargs=EAGER)
    for side, key in TEXTS_OF.items():
        assert_close(embedded(model, params, case.about, side).dense, theirs.encode(case.about[key]))
    assert (theirs.max_seq_length, theirs[0].do_lower_case) == (16, True)
    versions = json.loads((folder / "config_sentence_transformers.json").read_text())["__version__"]
    assert versions["sentence_transformers"] == "5.3.0"


def test_a_sparse_folder_of_version_5_is_opened_by_it(tmp_path):
    case = Case("sparse5_roberta")
    model, params, folder = resaved(case, tmp_path / "saved")
    theirs = SparseEncoder(str(folder), device="cpu", model_kwargs=EAGER)
    for side, key in TEXTS_OF.items():
        found = np.asarray(embedded(model, params, case.about, side).lexical.spread())
        assert_close(found, theirs.encode(case.about[key], convert_to_sparse_tensor=False))


def test_a_fresh_dense_model_of_several_poolings_is_opened_by_version_5(random_params, tmp_path):
    text = plain_text(17, query_prefix="rain ", passage_prefix="the cat ", strip=True)
    settings = {"heads": ("dense",), "pooling": ("max", "mean"), "pool_prompt": False, "dense_layers": (10,)}
    saved = fresh("bert", "sentence_transformers", tmp_path / "saved", random_params, text, **settings)
    model, params, folder = saved
    theirs = SentenceTransformer(str(folder), device="cpu", model_kwargs=EAGER)
    texts = {"queries": ["where is the cat?", " x"], "documents": ["The cat sleeps, alone.", "sea."]}
    assert_close(embedded(model, params, texts, "query").dense, theirs.encode_query(texts["queries"]))
    assert_close(embedded(model, params, texts, "document").dense, theirs.encode_document(texts["documents"]))


@pytest.mark.parametrize("expands", [False, True])
def test_a_fresh_late_interaction_model_is_opened(expands, random_params, tmp_path):
    case = Case("pylate_bert")
    markers = {"query_marker": "[Q] ", "passage_marker": "[D] "}
    text = plain_text(17, query_max_len=9, query_prefix="rain ", query_expansion=expands, strip=True, **markers)
    skipped = words_skiplist(PretrainedTokenizer.load(case.folder), [".", ","])
    layers = (Projection(9, use_bias=True, activation="tanh", residual=True), 6)
    settings = {"heads": ("multi_vector",), "token_layers": layers, "skip_ids": tuple(sorted(skipped))}
    settings |= {"attend_to_expansion": not expands}
    saved = fresh("pylate_bert", "pylate", tmp_path / "saved", random_params, text, **settings)
    theirs = opened(saved[2])
    texts = {"queries": ["where is the cat?", "x"], "documents": ["The cat sleeps, alone.", " x ", "sea."]}
    assert_same_tokens(saved, texts, token_vectors(theirs))
    assert theirs.prompts == {"query": "rain ", "document": ""}
