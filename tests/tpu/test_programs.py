"""The train step and the search programs compile for TPU pods, fit, and talk as intended."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.data.text import TextConfig
from jaxret.data.tokenizer import Tokenizer
from jaxret.nn.config import EncoderConfig
from jaxret.nn.retriever import RetrieverConfig
from jaxret.ops.block_scores import QueryTokens, Rows, Terms, Tiles, multi_vector_scores
from jaxret.ops.topk import TopK
from jaxret.runtime.compiled.costs import costs, held_bytes
from jaxret.runtime.compiled.hlo import Program
from jaxret.runtime.mesh import AXES, batch_sharding
from jaxret.runtime.model import Model
from jaxret.search.blocks import MODES, SIZES, tile_documents
from jaxret.search.on_devices import programs
from jaxret.train.objectives.contrastive import contrastive
from jaxret.train.objectives.represented import objective_over
from jaxret.train.objectives.tiled import tiled_contrast
from jaxret.train.optimizers import adamw
from jaxret.train.program import step_program
from tests.tpu.conftest import HBM, collectives

HEADS = ("dense", "lexical", "multi_vector")
BASE = RetrieverConfig(
    EncoderConfig(vocab_size=32768, width=768, num_layers=12, num_heads=12, mlp_width=2048),
    dense_layers=(768,),
    token_layers=(128,),
    skip_ids=(7, 8),
)


def compiled_step(mesh, rows: int):
    model = Model(BASE, TextConfig(), Tokenizer(b""), "bfloat16")
    optimizer = adamw(1000, learning_rate=1e-4)
    objective = functools.partial(contrastive, temperature=dict.fromkeys(HEADS, 0.05), weight=dict.fromkeys(HEADS, 1.0))
    step, abstract = step_program(model, objective, optimizer, 0, mesh)
    spread = batch_sharding(mesh)
    shapes = {"query": (rows, 32), "passage": (rows, 1, 256), "passage_key": (rows, 1)}
    batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=spread) for name, shape in shapes.items()}
    return step.lower(abstract, batch).compile()


@pytest.mark.parametrize(
    ("topology", "shape"), [("v5e:4x4", (-1, 1, 1)), ("v5e:4x4", (2, 4, 2)), ("v5p:2x2x2", (-1, 2, 1))]
)
def test_train_step(tpu_mesh, topology: str, shape: tuple[int, int, int]):
    mesh = tpu_mesh(topology, shape)
    rows = mesh.shape["data"] * mesh.shape["fsdp"] * 16
    compiled = compiled_step(mesh, rows)
    assert held_bytes(compiled) < HBM[topology[:3]]
    inside = [c for c in collectives(compiled) if "while" in c[1] and "encoder" not in c[1]]
    assert not inside, "a collective inside MaxSim's loop over documents"
    kinds = {kind for kind, _, _ in collectives(compiled)}
    assert "all-gather" in kinds, "every device scores against the documents of all"


def search_inputs(mode: str, mesh, stored: str = "bfloat16", asked: str = "bfloat16") -> tuple:
    """A batch of 64 queries, and a block for each chip."""
    whole, spread = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXES))
    array = lambda shape, dtype, sharding: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)  # noqa: E731
    n, sizes = mesh.devices.size, SIZES["tpu"]
    best = TopK(array((n, 64, 100), jnp.float32, spread), array((n, 64, 100), jnp.int32, spread))
    if mode == "multi_vector":
        queries = QueryTokens(array((64, 32, 128), jnp.dtype(asked), whole), array((64, 32), jnp.bool_, whole))
        documents = tile_documents(128, sizes.tile_tokens)
        shape, count = (n, sizes.tiles, documents, 128), sizes.tiles * documents
        scales = array(shape, jnp.float32, spread) if stored == "int8" else None
        used = array((n, sizes.tiles), jnp.bool_, spread)
        block = Tiles(array((*shape, 128), jnp.dtype(stored), spread), used, scales)
    elif mode == "dense":
        count = sizes.documents
        queries, block = array((64, 768), jnp.bfloat16, whole), Rows(array((n, count, 768), jnp.bfloat16, spread))
    else:
        count = sizes.documents
        ids, weights = (array((n, count, 128), dtype, spread) for dtype in (jnp.int32, jnp.float32))
        queries, block = array((32768, 64), jnp.float32, whole), Terms(ids, weights)
    return best, queries, block, array((n, count), jnp.int32, spread)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("topology", ["v5e:4x4", "v5e:16x16"])
def test_search(tpu_mesh, topology: str, mode: str):
    mesh = tpu_mesh(topology)
    compiled = programs(MODES[mode].score, 100, mesh)
    inputs = search_inputs(mode, mesh)
    step = compiled.step.lower(*inputs).compile()
    assert held_bytes(step) < HBM["v5e"] / 4, "two blocks are there at a time, and the queries"
    assert not list(collectives(step)), "a block's scores stay on its chip"
    # Scores and positions of every chip's best 100, and nothing else; the compiler may gather by adding up zeros.
    finish = compiled.finish.lower([inputs[0]]).compile()
    travelled = sorted(
        math.prod(map(int, re.match(r"\w+\[([\d,]+)\]", shape)[1].split(","))) for *_, shape in collectives(finish)
    )
    assert travelled == [mesh.devices.size * 64 * 100] * 2


@pytest.mark.parametrize(
    ("topology", "stored", "asked"),
    [
        ("v5e:16x16", "int8", "bfloat16"),
        ("v5e:16x16", "int8", "float32"),
        ("v5p:4x4x4", "bfloat16", "bfloat16"),
        ("v5p:4x4x4", "float32", "float32"),
    ],
)
def test_maxsim_is_a_kernel_that_moves_fewer_bytes(tpu_mesh, topology: str, stored: str, asked: str):
    mesh = tpu_mesh(topology)
    inputs = search_inputs("multi_vector", mesh, stored, asked)
    steps = [programs(score, 100, mesh).step for score in (MODES["multi_vector"].score, multi_vector_scores)]
    kernel, plain = (step.lower(*inputs).compile() for step in steps)
    ours, theirs = (costs(Program(compiled.as_text())) for compiled in (kernel, plain))
    block = sum(x.size // mesh.devices.size * x.dtype.itemsize for x in jax.tree.leaves(inputs[2]))
    assert list(ours.kernels.values()) == [1] and not theirs.kernels
    assert block < ours.traffic < 1.3 * block < theirs.traffic, "a block is read once, its scores are little"
    assert held_bytes(kernel) < 1.3 * block
    assert not collectives(kernel)


@pytest.mark.parametrize("shape", [(-1, 1, 1), (4, 4, 1)])
def test_a_large_batch_in_chunks_and_tiles(tpu_mesh, shape: tuple[int, int, int]):
    mesh = tpu_mesh("v5e:4x4", shape)
    heads = {"dense": 1.0, "multi_vector": 1.0}
    config = dataclasses.replace(BASE, heads=tuple(heads))
    model = Model(config, TextConfig(), Tokenizer(b""), "bfloat16", chunk_rows=16, remat="products")
    objective = objective_over([functools.partial(tiled_contrast, temperature=heads, weight=heads, columns=64)])

    def compiled(rows: int):
        step, abstract = step_program(model, objective, adamw(1000, learning_rate=1e-4), 0, mesh)
        spread = batch_sharding(mesh)
        shapes = {"query": (rows, 32), "passage": (rows, 1, 256), "passage_key": (rows, 1)}
        batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=spread) for name, shape in shapes.items()}
        return step.lower(abstract, batch).compile()

    program = compiled(16 * 512)
    assert held_bytes(program) < HBM["v5e"]
    found = collectives(program)
    print(f"\nBERT-base, 8,192 pairs, v5e:4x4 as {shape}: {held_bytes(program) / 2**30:.2f} GiB a chip", end="")
    assert "collective-permute" in {kind for kind, *_ in found}, "documents go round"
    if shape == (-1, 1, 1):
        gathered = [c for c in found if c[0] == "all-gather" and "encoder" not in c[1] and "s32" not in c[2]]
        assert not gathered, "no device holds the documents of all"
        summed = [c for c in found if c[0] == "all-reduce" and "while" in c[1]]
        assert not summed, "gradients are summed once, after the last chunk"
