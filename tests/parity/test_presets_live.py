"""Every preset has as many parameters as the original class of its family makes of the same record, without weights."""

import math

import jax
import jax.numpy as jnp
import pytest
import torch
from transformers import AutoConfig, AutoModel

from jaxret.nn.encoder import Encoder
from jaxret.nn.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_size(name):
    family, record = PRESETS[name]
    with torch.device("meta"):
        theirs = AutoModel.from_config(AutoConfig.for_model(family, **record))
    wanted = sum(x.numel() for path, x in theirs.named_parameters() if not path.startswith("pooler"))
    config, ids = preset(name), jnp.ones((1, 8), jnp.int32)
    params = jax.eval_shape(Encoder(config).init, jax.random.key(0), ids, ids > 0)["params"]
    unused = 0 if config.first_norm else config.width  # layers are stacked: the first has a norm too
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(params)) - unused == wanted
