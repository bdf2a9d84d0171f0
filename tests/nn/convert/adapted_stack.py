"""A tiny model in linen, with a fused attention in the original, for the tests of adapters; no torch."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxret.nn.convert.table import Rule, Table
from jaxret.nn.layers import Dense
from jaxret.nn.lora import with_lora

GOLDENS = Path(__file__).parents[2] / "goldens" / "adapters"
PARTS = ("query", "key", "value")
TABLE = Table(
    (
        *(
            Rule("layers.{layer}.attention.Wqkv.weight", f"layers/attention/{name}/kernel", True, (number, 3))
            for number, name in enumerate(PARTS)
        ),
        Rule("layers.{layer}.mlp.up.weight", "layers/mlp/up/kernel", True),
        Rule("layers.{layer}.mlp.down.weight", "layers/mlp/down/kernel", True),
        Rule("head.weight", "head/kernel", True),
    ),
    ignored=(r"pooler\..*",),
)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        q, k, v = (Dense(x.shape[-1], (None, None), name=name)(x) for name in PARTS)
        return jnp.tanh(q * k) + v


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Dense(x.shape[-1], (None, None), name="down")(jnp.tanh(Dense(9, (None, None), name="up")(x)))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + Attention(name="attention")(x)
        return x + MLP(name="mlp")(x), None


class Stack(nn.Module):
    @nn.compact
    def __call__(self, x):
        x, _ = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)(name="layers")(x)
        return Dense(5, (None, None), name="head")(x)


def stack_params(weights):
    """Our parameters from the original's weights by name."""
    params = {}
    for rule in TABLE.rules:
        layers = [rule.our_array(weights[rule.name(layer)]) for layer in (range(3) if rule.layered else (None,))]
        params[rule.ours] = jnp.asarray(np.stack(layers) if rule.layered else layers[0])
    return unflatten_dict(params, sep="/")


def stack_output(params, x, config=None):
    """The outputs, with an adapter's leaves where a configuration is given."""
    if config is None:
        return np.asarray(jax.jit(Stack().apply)({"params": params}, x))

    def adapted(params, x):
        with with_lora(config):
            return Stack().apply({"params": params}, x)

    return np.asarray(jax.jit(adapted)(params, x))
