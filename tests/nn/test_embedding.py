import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.embedding import Embedding
from jaxret.nn.encoder import Encoder
from tests.train.objectives.pretraining import BERT

LEARNED = dataclasses.replace(BERT, vocab_size=11, position_offset=2)
ROTARY = dataclasses.replace(LEARNED, positions="rotary", embedding_norm=False, num_types=0)
IDS = jnp.array([[3, 7, 7, 1, -1], [9, 2, -1, -1, -1]])


@pytest.mark.parametrize("config", [LEARNED, ROTARY], ids=["learned", "rotary"])
@pytest.mark.parametrize("given", [False, True], ids=["tokens", "given"])
def test_embeddings_alone_are_what_the_encoders_first_layer_takes(config, given, random_params):
    encoder = Encoder(config)
    params = random_params(nn.meta.unbox(jax.eval_shape(encoder.init, jax.random.key(0), IDS, IDS >= 0)["params"]))
    embeddings = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 16)), jnp.float32) if given else None
    _, states = encoder.apply({"params": params}, IDS, IDS >= 0, embeddings=embeddings, all_states=True)
    alone = Embedding(config).apply({"params": params}, IDS, IDS >= 0, embeddings=embeddings)
    np.testing.assert_array_equal(alone, states[0])
    assert np.std(alone) > 0.1
