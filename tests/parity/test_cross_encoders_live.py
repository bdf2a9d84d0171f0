"""Pairs tokenised by transformers, and cross-encoders that we save opened by transformers and sentence-transformers."""

import itertools
import json

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import jaxret
from jaxret.data.pairs import TRUNCATIONS, PairConfig, pair_rows
from jaxret.data.pretrained_tokenizer import PretrainedTokenizer
from jaxret.nn.cross_encoder import CrossEncoderConfig, ScoreHeadConfig
from jaxret.runtime.cross_encoder import CrossEncoderModel
from jaxret.runtime.layouts import describe
from jaxret.runtime.layouts.cross_encoders import save_cross_encoder
from jaxret.runtime.mesh import device_mesh
from tests.parity.cases import Case, cases, names
from tests.parity.round_trips import EAGER, assert_close

CASES = cases("cross_encoder")
TOKENIZERS = ["bert", "roberta", "xlm_roberta", "modernbert", "xlm_roberta_xl", "colbert_japanese"]
TEXTS = ["", "cat", "cat, alone", "Where does the river meet the sea, and what else?", "北海道の雨", "a b c d e f g h"]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pairs_are_cut_as_transformers_cuts_them(name):
    theirs, ours = AutoTokenizer.from_pretrained(Case(name).folder), PretrainedTokenizer.load(Case(name).folder)
    compared = 0
    for length, truncation in itertools.product((9, 12, 13, 20), TRUNCATIONS):
        for pair in itertools.product(TEXTS, TEXTS):
            if truncation == "only_second" and len(ours.encode(pair[:1])[0]) > length - 5:
                continue  # theirs fails or gives more than `length`; ours cuts the query
            found = theirs([pair], truncation=truncation, max_length=length)
            ids = found["input_ids"][0]
            types = found.get("token_type_ids", [[0] * len(ids)])[0]
            row = pair_rows(ours, PairConfig(length, truncation), pair[:1], pair[1:])[0]
            assert (row.ids, row.types) == (ids, types), (length, truncation, pair)
            compared += 1
    assert compared > 150


@torch.no_grad()
def logits(folder, pairs):
    inputs = AutoTokenizer.from_pretrained(folder)(pairs, truncation=True, padding=True, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder, **EAGER).eval()
    return model(**inputs).logits[:, 0].numpy()


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_saved_cross_encoders_are_opened_again(case, tmp_path):
    encoder = jaxret.CrossEncoder.from_pretrained(case.folder, max_len=34)
    folder, pairs = encoder.save_pretrained(tmp_path / "saved"), case.about["pairs"]
    assert_close(encoder.predict(pairs, activation_fn="identity"), logits(folder, pairs))
    library = CrossEncoder(str(folder), device="cpu", model_kwargs=EAGER)
    assert library.max_seq_length == 34
    assert_close(encoder.predict(pairs), library.predict(pairs))
    ours = encoder.rank(pairs[0][0], [pair[1] for pair in pairs[:3]])
    theirs = library.rank(pairs[0][0], [pair[1] for pair in pairs[:3]])
    assert [row["corpus_id"] for row in ours] == [row["corpus_id"] for row in theirs]
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "LABEL_0"}


@pytest.mark.parametrize("name", ["bert", "xlm_roberta_xl", "modernbert"])
def test_a_fresh_cross_encoder_is_opened(name, random_params, tmp_path):
    body = describe(Case(name).folder).model
    head = ScoreHeadConfig("mean", False, "silu", norm=True) if name == "modernbert" else ScoreHeadConfig(dropout=0.2)
    config = CrossEncoderConfig(body.config.encoder, head, "identity")
    model = CrossEncoderModel(config, PairConfig(20), PretrainedTokenizer.load(Case(name).folder))
    params = random_params(model.abstract_params())
    folder = save_cross_encoder(tmp_path / "saved", model, params, "huggingface")
    pairs = [["where is the cat?", "The cat sleeps, alone."], ["rain", "rain rain"]]
    ours = jaxret.search.cross_encoder.CrossEncoder(model, params, device_mesh()).predict(pairs)
    assert_close(ours, logits(folder, pairs))
    assert_close(ours, np.asarray(CrossEncoder(str(folder), device="cpu", model_kwargs=EAGER).predict(pairs)))
