"""Runs that start from published checkpoints."""

import functools

import jax
import numpy as np
import pytest

import jaxret
from jaxret.data.batches import training_batches
from jaxret.data.tasks import Source
from jaxret.data.text import TextConfig
from jaxret.errors import InputError
from jaxret.nn.config import EncoderConfig
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts import load_pretrained
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import load_model
from jaxret.train.loop import train
from jaxret.train.objectives.contrastive import contrastive
from jaxret.train.optimizers import adamw
from tests.parity.cases import Case

HEADS = ("dense", "lexical", "multi_vector")
ONES = dict.fromkeys(HEADS, 1.0)
TEXTS = ["The cat sleeps in the garden.", "The bee sleeps by the river."]


def settings(folder, **changes):
    return {
        "batches": functools.partial(training_batches, train_group_size=1, sources=(Source(str(folder)),)),
        "objective": functools.partial(contrastive, temperature=ONES, weight=ONES),
        "optimizer": functools.partial(adamw, learning_rate=1e-3),
        "steps": 2,
        "global_batch_size": 8,
    } | changes


def equal(one, other) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pylate_bert", "st6_minilm", "bge_m3"])
def test_a_checkpoint_is_trained_and_saved_in_its_own_layout(name, beir_of_animals, tmp_path):
    checkpoint, workdir = Case(name).folder, tmp_path / "run"
    train(str(workdir), pretrained=str(checkpoint), **settings(beir_of_animals))
    _, published = load_pretrained(checkpoint, device_mesh())
    model, first, _ = load_model(workdir, device_mesh(), 0)
    assert equal(first, published)
    trained = jaxret.from_pretrained(workdir)
    assert not equal(trained.params, published) and trained.model.config == model.config
    again = jaxret.from_pretrained(trained.save_pretrained(tmp_path / "saved"))
    assert again.model.origin["layout"] == model.origin["layout"] != "jaxret"
    pairs = zip(*(jax.tree.leaves(each.encode_document(TEXTS)) for each in (again, trained)), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_heads_that_the_checkpoint_lacks_start_fresh(beir_of_animals, tmp_path):
    retriever = RetrieverConfig(EncoderConfig(), heads=HEADS, dense_layers=(8,), token_layers=(6,))
    text = TextConfig(query_max_len=12, passage_max_len=20, query_marker="", passage_marker="", query_expansion=False)
    train(
        str(tmp_path),
        pretrained=str(Case("bert").folder),
        retriever=retriever,
        text=text,
        **settings(beir_of_animals, steps=1),
    )
    model, first, _ = load_model(tmp_path, device_mesh(), 0)
    found, published = load_pretrained(Case("bert").folder, device_mesh(), heads=("dense",))
    assert model.config.encoder == found.config.encoder and model.config.heads == HEADS
    assert equal(first["encoder"], published["encoder"])
    assert {"dense", "lexical", "multi_vector"} <= set(first) and model.config.mask_id == found.config.mask_id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "train.vocabulary, train.pretrained: neither is given. Give exactly one"),
        ({"pretrained": "somewhere", "vocabulary": "v.model"}, "both are given"),
        ({"vocabulary": "v.model"}, "train.retriever, train.text: not bound"),
        ({"pretrained": "nowhere"}, "nowhere: "),
    ],
)
def test_bad_starts_are_refused_before_anything_is_made(changes, message, beir_of_animals, tmp_path):
    with pytest.raises(InputError, match=message):
        train(str(tmp_path / "run"), **settings(beir_of_animals, **changes))
    assert not (tmp_path / "run").exists()
