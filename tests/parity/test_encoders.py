"""Every family's encoder against PyTorch's states, layer by layer and whole, from published layouts."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxret.nn.attention import plain_attention
from jaxret.nn.block import Block
from jaxret.nn.config import EncoderConfig
from jaxret.nn.convert.configs import encoder_config, record_of, row
from jaxret.nn.convert.families import FAMILIES
from jaxret.nn.convert.tensor_files import open_tensors
from jaxret.nn.encoder import Encoder
from jaxret.nn.language_model import LanguageModel
from tests.parity.cases import Case, cases, names
from tests.parity.tolerances import LAYER, MODEL

BODIES = cases("transformers")
LANGUAGE_MODELS = cases("masked_lm")


def record(case: Case) -> dict[str, Any]:
    """Its config.json."""
    return json.loads((case.folder / "config.json").read_text())


def config_of(case: Case) -> EncoderConfig:
    """Its encoder, causal or not as the goldens were made."""
    config = encoder_config(record(case))
    return dataclasses.replace(config, causal=False) if case.about["bidirectional"] else config


def loaded(case: Case, module: nn.Module, *, head: bool) -> Any:
    """Its parameters, as the module wants them."""
    ids, mask = jnp.zeros((1, 8), jnp.int32), jnp.ones((1, 8), jnp.bool_)
    variables = jax.eval_shape(module.init, jax.random.key(0), ids, mask)
    shapes = nn.meta.unbox(variables)["params"]
    shapes = shapes if head else {"encoder": shapes}
    tensors, family = open_tensors(case.folder), FAMILIES[case.family]
    table = family.table(prefix=family.prefix_of(tensors), head=head)
    params = table.loaded(tensors, shapes, dtype=jnp.float32, place=case.folder)
    return params if head else params["encoder"]


def inputs(case: Case, side: str = "") -> tuple[jax.Array, jax.Array]:
    """Ids with our padding, and the mask."""
    mask = case.golden[side + "attention_mask"].astype(bool)
    ids = np.where(mask, case.golden[side + "token_ids"], -1)
    return jnp.asarray(ids, jnp.int32), jnp.asarray(mask)


def assert_close(ours: Any, theirs: np.ndarray, mask: np.ndarray, tolerance: float) -> None:
    """Equal at real positions, relative to the largest number."""
    ours, theirs = np.asarray(ours)[mask], theirs[mask]
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max(), rtol=0)


@pytest.mark.parametrize("case", BODIES, ids=names(BODIES))
def test_states_of_every_layer(case):
    encoder = Encoder(config_of(case))
    params = loaded(case, encoder, head=False)
    ids, mask = inputs(case)
    states, layers = jax.jit(partial(encoder.apply, all_states=True))({"params": params}, ids, mask)
    kept = np.asarray(mask)
    assert_close(states, case.golden["states"], kept, MODEL)
    if "layers" in case.golden:
        assert_close(layers[0], case.golden["embeddings"], kept, LAYER)
        final = case.golden["layers"]
        assert len(layers) == len(final) + 1
        for ours, theirs in zip(layers[1:], final, strict=True):
            assert_close(ours, theirs, kept, MODEL)


LAYERED = [case for case in BODIES if "layers" in case.golden]


@pytest.mark.parametrize("case", LAYERED, ids=names(LAYERED))
def test_each_layer_alone(case):
    config = config_of(case)
    encoder = Encoder(config)
    params, (_, mask) = loaded(case, encoder, head=False), inputs(case)
    block = jax.jit(Block(config, plain_attention, True, False).apply)
    before = case.golden["embeddings"]
    for number, after in enumerate(case.golden["layers"]):
        own = {"params": jax.tree.map(lambda x, number=number: x[number], params["layers"])}
        states, _ = block(own, jnp.asarray(before), jnp.asarray(number), mask, encoder._tables(mask.shape[1]))
        assert_close(states, after, np.asarray(mask), LAYER)
        before = after


@pytest.mark.parametrize("case", BODIES, ids=names(BODIES))
def test_padding_on_the_left(case):
    encoder = Encoder(config_of(case))
    ids, mask = inputs(case, "left_")
    states, _ = jax.jit(encoder.apply)({"params": loaded(case, encoder, head=False)}, ids, mask)
    assert_close(states, case.golden["left_states"], np.asarray(mask), MODEL)


@pytest.mark.parametrize("case", [case for case in BODIES if "typed_states" in case.golden], ids=lambda case: case.name)
def test_token_types(case):
    encoder = Encoder(config_of(case))
    ids, mask = inputs(case)
    types = jnp.asarray(case.golden["token_types"])
    states, _ = jax.jit(encoder.apply)({"params": loaded(case, encoder, head=False)}, ids, mask, type_ids=types)
    assert_close(states, case.golden["typed_states"], np.asarray(mask), MODEL)


@pytest.mark.parametrize("case", LANGUAGE_MODELS, ids=names(LANGUAGE_MODELS))
def test_logits_of_language_models(case):
    found = record(case)
    model = LanguageModel(encoder_config(found), row(found).lm_head(found))
    ids, mask = inputs(case)
    logits = jax.jit(model.apply)({"params": loaded(case, model, head=True)}, ids, mask)
    assert_close(logits, case.golden["logits"], np.asarray(mask), MODEL)


@pytest.mark.parametrize("case", BODIES, ids=names(BODIES))
def test_config_there_and_back(case):
    config = encoder_config(record(case))
    again = encoder_config(record_of(config, case.family))
    free = {"local_rope_base": 0.0, "num_kv_heads": 0, "head_width": 0, "dropout": 0.0}
    assert dataclasses.replace(again, **free) == dataclasses.replace(config, **free)
    assert (again.kv_heads, again.heads_width) == (config.kv_heads, config.heads_width)
