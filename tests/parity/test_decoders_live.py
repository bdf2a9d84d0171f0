"""Embeddings in place of ids, as a connector gives them to a decoder, against transformers."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoModel

from jaxret.nn.encoder import Encoder
from jaxret.runtime.layouts import load_pretrained
from jaxret.runtime.mesh import device_mesh
from tests.parity.cases import Case
from tests.parity.round_trips import assert_close


@pytest.mark.parametrize("name", ["mistral", "mistral_window", "llama_scaled", "qwen2", "qwen3"])
def test_embeddings_in_place_of_ids(name):
    folder = Case(name).folder
    model, params = load_pretrained(folder, device_mesh())
    theirs = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(3, 17, model.config.encoder.width)).astype(np.float32)
    mask = np.arange(17)[None] < np.array([[17], [9], [1]])
    with torch.no_grad():
        expected = theirs(inputs_embeds=torch.tensor(embeddings), attention_mask=torch.tensor(mask)).last_hidden_state
    ids = jnp.where(mask, 0, -1)
    states, _ = Encoder(model.config.encoder).apply(
        {"params": params["encoder"]}, ids, jnp.asarray(mask), embeddings=jnp.asarray(embeddings)
    )
    assert_close(np.asarray(states)[mask], expected.numpy()[mask])
