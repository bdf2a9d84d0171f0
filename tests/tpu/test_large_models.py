"""Models up to 7B, and texts of 8192 tokens, compile for TPU pods and fit; only weights travel through the layers.

What each program needs of a chip's memory is printed.
"""

import functools
import re

import jax
import jax.numpy as jnp
import pytest

from jaxret.data.text import TextConfig
from jaxret.data.tokenizer import Tokenizer
from jaxret.nn.presets import preset
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.compiled.costs import held_bytes
from jaxret.runtime.mesh import batch_sharding
from jaxret.runtime.model import Model
from jaxret.train.objectives.contrastive import contrastive
from jaxret.train.optimizers import adamw
from jaxret.train.program import step_program
from tests.tpu.conftest import HBM, collectives, memory

TOPOLOGY = "v5e:4x4"
LONG = 8192


@pytest.fixture
def printed(capsys):
    """Prints a program's memory, in a passing test too."""

    def show(name: str, mesh, size: str, compiled) -> None:
        shape = "x".join(map(str, mesh.devices.shape))
        with capsys.disabled():
            print(f"\n{name}, {size}, {TOPOLOGY} as {shape}: {memory(compiled)}")

    return show


def encoding(mesh, config: RetrieverConfig, rows: int, length: int, dtype=jnp.bfloat16, attention: str = "plain"):
    """The program that embeds passages, with parameters and products in that dtype."""
    model = Model(config, TextConfig(), Tokenizer(b""), jnp.dtype(dtype).name, attention)
    ids = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=batch_sharding(mesh))

    def embed(params, ids):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return model.apply(params, ids, "passage")

    return jax.jit(embed).lower(model.abstract_params(mesh, dtype), ids).compile()


def travelling_states(compiled, length: int) -> list[str]:
    """Collectives in the layers whose operands have an axis of that length: states, not weights."""
    inside = [(kind, shape) for kind, name, shape in collectives(compiled) if not name or "while/body" in name]
    dims = {shape: ",".join(re.findall(r"\[([\d,]*)\]", shape)).split(",") for _, shape in inside}
    return [kind for kind, shape in inside if str(length) in dims[shape]]


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("mistral-7b-v0.3", (1, 16, 1), jnp.bfloat16),
        ("mistral-7b-v0.3", (1, 4, 4), jnp.bfloat16),
        ("xlm-roberta-xl", (1, 8, 2), jnp.float32),
    ],
)
def test_a_large_encoder(tpu_mesh, printed, name, shape, dtype):
    mesh, rows, length = tpu_mesh(TOPOLOGY, shape), 64, 512
    config = RetrieverConfig(preset(name, causal=False), heads=("dense",), pooling="mean")
    compiled = encoding(mesh, config, rows, length, dtype)
    printed(f"{name} {jnp.dtype(dtype).name}", mesh, f"{rows} texts of {length}", compiled)
    assert held_bytes(compiled) < HBM["v5e"]
    # Each layer adds up the products of its rows of `output` and of `down` over `tensor`, and nothing else.
    assert travelling_states(compiled, length) == ["all-reduce"] * 2 * (shape[2] > 1)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("bge-m3", (2, 4, 2)), ("modernbert-base", (4, 4, 1)), ("granite-embedding-small-english-r2", (16, 1, 1))],
)
def test_long_texts(tpu_mesh, printed, name, shape):
    mesh, rows = tpu_mesh(TOPOLOGY, shape), 16
    config = RetrieverConfig(preset(name), heads=("dense", "lexical", "multi_vector"), token_layers=(128,))
    programs = {kind: encoding(mesh, config, rows, LONG, attention=kind) for kind in ("plain", "splash")}
    for kind, compiled in programs.items():
        printed(f"{name} bfloat16 {kind}", mesh, f"{rows} texts of {LONG}", compiled)
        assert held_bytes(compiled) < HBM["v5e"]
        assert travelling_states(compiled, LONG) == ["all-reduce"] * 2 * (shape[2] > 1)
    scores, none = (programs[kind].memory_analysis().temp_size_in_bytes for kind in ("plain", "splash"))
    assert none < scores / 8, "the kernel stores scores"


def test_a_train_step_of_xlm_roberta_xl(tpu_mesh, printed):
    mesh, rows = tpu_mesh(TOPOLOGY, (1, 16, 1)), 64
    config = RetrieverConfig(preset("xlm-roberta-xl"), heads=("dense",), pooling="mean")
    model, optimizer = Model(config, TextConfig(), Tokenizer(b""), "bfloat16", "plain"), adamw(1000, learning_rate=1e-5)
    objective = functools.partial(contrastive, temperature={"dense": 0.05}, weight={"dense": 1.0})
    step, abstract = step_program(model, objective, optimizer, 0, mesh)
    shapes = {"query": (rows, 32), "passage": (rows, 1, 256), "passage_key": (rows, 1)}
    spread = batch_sharding(mesh)
    batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=spread) for name, shape in shapes.items()}
    compiled = step.lower(abstract, batch).compile()
    printed("xlm-roberta-xl train step, adamw", mesh, f"{rows} pairs of 32 and 256", compiled)
    assert held_bytes(compiled) < HBM["v5e"]
    assert not travelling_states(compiled, 256)
