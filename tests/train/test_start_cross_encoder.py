"""Training of a cross-encoder: from nothing, from an encoder and from a cross-encoder."""

from functools import partial

import jax
import numpy as np
import pytest

import jaxret
from jaxret.data.batches import training_batches
from jaxret.data.pair_batches import pair_batches
from jaxret.data.pairs import PairConfig
from jaxret.data.tasks import GroupFile
from jaxret.errors import InputError
from jaxret.nn.config import EncoderConfig
from jaxret.nn.cross_encoder import CrossEncoderConfig, ScoreHeadConfig
from jaxret.runtime.layouts import load_pretrained, loaded_params
from jaxret.runtime.layouts.cross_encoders import load_cross_encoder
from jaxret.runtime.mesh import device_mesh
from jaxret.train.loop import train
from jaxret.train.objectives.cross_encoder import by_labels, cross_encoder
from jaxret.train.optimizers import adamw
from jaxret.train.start_cross_encoder import described
from tests.parity.cases import Case

FRESH = ("float32", "auto")


@pytest.fixture(scope="module")
def run(groups_of_animals, beir_of_animals, tokenizer, tmp_path_factory):
    """Trains in a workdir, to so many steps."""
    vocabulary = tmp_path_factory.mktemp("vocabulary") / "vocabulary.model"
    tokenizer.save(vocabulary)
    sizes = EncoderConfig(width=16, num_layers=1, num_heads=2, mlp_width=12, num_types=2)
    groups = partial(training_batches, sources=[GroupFile(groups_of_animals, beir_of_animals)], train_group_size=3)

    def start(workdir, steps):
        return train(
            str(workdir),
            batches=partial(pair_batches, groups),
            objective=partial(cross_encoder, parts=[by_labels]),
            optimizer=lambda _: adamw(2, learning_rate=0.02),
            steps=steps,
            global_batch_size=8,
            retriever=CrossEncoderConfig(sizes, ScoreHeadConfig("mean"), "identity"),
            text=PairConfig(32),
            vocabulary=str(vocabulary),
            described=described,
            save_interval_steps=2,
            log_period=1,
        )

    return start


def test_a_run_loads(run, tmp_path):
    whole = run(tmp_path / "whole", 2)
    trained = jaxret.CrossEncoder.from_pretrained(whole)
    pairs = [("where is the cat?", "cat The cat sleeps."), ("where is the cat?", "owl The owl sleeps.")]
    untrained = jaxret.CrossEncoder.from_pretrained(whole, step=0)
    assert np.abs(untrained.predict(pairs) - trained.predict(pairs)).max() > 1e-3
    with pytest.raises(InputError, match=r"cross_encoder\.json: the workdir holds another model"):
        train(
            str(whole),
            batches=iter,
            objective=print,
            optimizer=adamw,
            steps=1,
            global_batch_size=8,
            pretrained=str(Case("ce_bert").folder),
            described=described,
        )


def test_an_encoder_goes_on_with_a_fresh_head():
    config = CrossEncoderConfig(EncoderConfig(), ScoreHeadConfig(dropout=0.1), "identity")
    found = described(config, PairConfig(20), "", str(Case("st6_minilm").folder), *FRESH)
    params = loaded_params(found, device_mesh(), missing="init", seed=1)
    _, theirs = load_pretrained(Case("st6_minilm").folder, device_mesh())
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], theirs["encoder"])
    assert params.keys() == {"encoder", "score"} and np.any(params["score"]["classifier"]["kernel"])
    assert found.model.config.activation_fn == "identity" and found.model.config.encoder.num_types == 2


def test_a_cross_encoder_goes_on():
    folder = Case("ce_modernbert").folder
    found = described(None, None, "", str(folder), *FRESH)
    model, theirs = load_cross_encoder(folder, device_mesh())
    assert (found.model.config, found.model.text) == (model.config, model.text)
    jax.tree.map(np.testing.assert_array_equal, loaded_params(found, device_mesh(), missing="init"), theirs)
    assert described(None, PairConfig(20), "", str(folder), *FRESH).model.text.max_len == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, None, "", ""), "neither is given"),
        ((None, None, "v.model", "folder"), "both are given"),
        ((None, None, "v.model", ""), "train.retriever, train.text: not bound"),
        ((None, PairConfig(20), "", "bert"), "train.retriever, train.text: not bound"),
        ((CrossEncoderConfig(), PairConfig(90), "", "bert"), "90 ids, but the encoder has 24 positions"),
    ],
)
def test_wrong_settings(arguments, message):
    *rest, pretrained = arguments
    folder = str(Case("bert").folder) if pretrained == "bert" else pretrained
    with pytest.raises(InputError, match=message):
        described(*rest, folder, *FRESH)
