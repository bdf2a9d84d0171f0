"""Every preset, by shapes alone: its size, its places on every mesh of 8 devices, what it gives."""

import dataclasses
import math
from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxret.data.text import TextConfig
from jaxret.data.tokenizer import Tokenizer
from jaxret.errors import InputError
from jaxret.nn.config import EncoderConfig
from jaxret.nn.heads import LMHeadConfig
from jaxret.nn.presets import PRESETS, preset
from jaxret.nn.retriever import Retriever, RetrieverConfig
from jaxret.runtime.mesh import device_mesh, parameter_shardings
from jaxret.runtime.model import Model

MESHES = [(2**a, 2**b, 2 ** (3 - a - b)) for a in range(4) for b in range(4 - a)]


def pooler(width: int) -> int:
    return width * (width + 1)


def modernbert_head(width: int, vocabulary: int) -> int:
    return width * width + width + vocabulary


# The totals that the models' pages print, less what is not the body: a pooler or a language model's head.
PUBLISHED = {
    "bert-base-uncased": 109_482_240 - pooler(768),
    "bert-large-uncased": 335_141_888 - pooler(1024),
    "all-minilm-l6-v2": 22_713_216 - pooler(384),
    "roberta-base": 124_645_632 - pooler(768),
    "xlm-roberta-base": 278_043_648 - pooler(768),
    "xlm-roberta-large": 559_890_432 - pooler(1024),
    "modernbert-base": 149_655_232 - modernbert_head(768, 50368),
    "modernbert-large": 395_881_664 - modernbert_head(1024, 50368),
    "mistral-7b-v0.1": 7_241_732_096 - 32000 * 4096,
    "mistral-7b-v0.3": 7_248_023_552 - 32768 * 4096,
    "llama-3.1-8b": 8_030_261_248 - 128256 * 4096,
    "qwen2.5-3b": 3_085_938_688,
    "qwen3-embedding-0.6b": 595_776_512,
}


def retriever(name: str, **rest) -> RetrieverConfig:
    return RetrieverConfig(preset(name), **rest)


@lru_cache
def boxed(name: str):
    """Shapes of a dense retriever's parameters, with their logical axes."""
    module, ids = Retriever(retriever(name, heads=("dense",))), jnp.ones((1, 8), jnp.int32)
    return jax.eval_shape(lambda: module.init(jax.random.key(0), ids, "query")["params"])


def count(name: str) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(boxed(name)))


def given(config: RetrieverConfig, side: str) -> dict:
    """Shapes and dtypes of what the model gives for two texts of 16 tokens."""
    model, ids = Model(config, TextConfig(), Tokenizer(b"")), jax.ShapeDtypeStruct((2, 16), jnp.int32)

    def arrays(params, ids):
        found = model.apply(params, ids, side)
        return {"dense": found.dense, "tokens": found.tokens, "lexical": found.lexical and found.lexical.weights}

    return jax.eval_shape(arrays, model.abstract_params(), ids)


def closed_form(config: EncoderConfig) -> int:
    """Parameters of a body: tables, then in each layer two norms, attention and the MLP, then single norms."""
    width, q = config.width, config.num_heads * config.heads_width
    kv = config.kv_heads * config.heads_width
    norm = width * (1 + config.norm_bias)
    attention = width * (2 * q + 2 * kv) + config.qkv_bias * (q + 2 * kv) + config.output_bias * width
    attention += config.head_norm * 2 * config.heads_width
    inner = (1 + config.gated) * config.mlp_width
    mlp = width * (inner + config.mlp_width) + config.mlp_bias * (inner + width)
    rows = config.vocab_size + config.num_types + (config.positions == "learned") * config.max_positions
    singles = config.embedding_norm + config.final_norm
    return rows * width + config.num_layers * (attention + mlp + 2 * norm) + singles * norm


@pytest.mark.parametrize("name", PRESETS)
def test_size_in_closed_form(name):
    assert count(name) == closed_form(preset(name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_as_published(name):
    unused = 0 if preset(name).first_norm else preset(name).width  # layers are stacked: the first has a norm too
    assert count(name) - unused == PUBLISHED[name]


@pytest.mark.parametrize("name", PRESETS)
def test_every_axis_has_its_place_on_every_mesh(name):
    shapes = nn.meta.unbox(boxed(name))
    for shape in MESHES:
        shardings = parameter_shardings(boxed(name), device_mesh(shape))
        parts = jax.tree.map(lambda leaf, sharding: math.prod(sharding.shard_shape(leaf.shape)), shapes, shardings)
        share = sum(jax.tree.leaves(parts)) * shape[1] * shape[2] / count(name)
        assert 1 <= share < 1.2, f"on {shape} a chip holds {share:.2f} of its share"


@pytest.mark.parametrize("name", PRESETS)
def test_what_it_gives(name):
    found = given(retriever(name, dense_layers=(64,), token_layers=(32,)), "passage")
    assert found["dense"].shape == (2, 64)
    assert found["tokens"].shape == (2, 16, 32)
    assert found["lexical"].shape == (2, 16)


@pytest.mark.parametrize("name", ["bert-base-japanese-v3", "xlm-roberta-xl", "modernbert-base", "qwen3-embedding-0.6b"])
def test_a_language_models_head_weighs_the_vocabulary(name):
    found = given(retriever(name, heads=("lexical",), lm_head=LMHeadConfig()), "query")
    assert found["lexical"].shape == (2, preset(name).vocab_size)


def test_fields_can_be_changed():
    assert preset("mistral-7b-v0.3", causal=False) == dataclasses.replace(preset("mistral-7b-v0.3"), causal=False)
    assert preset("mistral-7b-v0.1").window == 4095
    assert preset("mistral-7b-v0.3").window == 0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mistral-8b", {}, r"preset: unknown 'mistral-8b'.*bert-base-uncased, .*qwen3-embedding-8b"),
        ("bge-m3", {"layers": 2}, r"preset bge-m3: unknown layers.*num_layers"),
        ("bge-m3", {"num_heads": 7}, r"EncoderConfig.num_heads: "),
    ],
)
def test_errors(name, changes, message):
    with pytest.raises(InputError, match=message):
        preset(name, **changes)
