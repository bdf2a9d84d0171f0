"""Gradient caching: any chunks, any mesh, dropout on, give the loss and the gradient of the batch as a whole."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxret.nn.encoder import REMATS
from jaxret.runtime.chunks import in_chunks
from jaxret.runtime.compiled.costs import costs
from jaxret.runtime.compiled.hlo import Program
from jaxret.runtime.mesh import device_mesh
from jaxret.train.objectives.contrastive import contrastive
from jaxret.train.program import global_batch, step_program
from jaxret.train.step import fresh_state

B, N, SEED = 16, 2, 3
ROWS, LENGTH, WIDTH = 256, 32, 64
KNOBS = dict.fromkeys(("dense", "lexical", "multi_vector"), 1.0)
DESCENT = optax.sgd(1.0)  # the change of a parameter is its gradient


@pytest.fixture(scope="module")
def dropping(model):
    encoder = dataclasses.replace(model.config.encoder, dropout=0.3)
    return dataclasses.replace(model, config=dataclasses.replace(model.config, encoder=encoder))


@pytest.fixture(scope="module")
def batch(model):
    random = np.random.default_rng(0)
    query = random.integers(3, model.tokenizer.size, (B, 6)).astype(np.int32)
    passage = random.integers(3, model.tokenizer.size, (B, N, 9)).astype(np.int32)
    query[:5, 4:], passage[3:9, 1, 5:] = -1, -1
    return {"query": query, "passage": passage, "passage_key": np.arange(B * N, dtype=np.int32).reshape(B, N)}


@pytest.fixture(scope="module")
def stepped(dropping, batch, random_params):
    """Loss and gradient of a step with chunks of so many rows on a mesh."""

    @functools.cache
    def found(rows, kept, shape):
        model, mesh = (
            dataclasses.replace(dropping, chunk_rows=rows, kept_rows=kept),
            device_mesh(shape, jax.devices()[: np.prod(shape)]),
        )
        objective = functools.partial(contrastive, temperature=KNOBS, weight=KNOBS)
        step, abstract = step_program(model, objective, DESCENT, SEED, mesh)
        params = random_params(model.abstract_params())
        before = jax.tree.map(np.asarray, params)
        state = jax.device_put(fresh_state(params, DESCENT, {}), jax.tree.map(lambda x: x.sharding, abstract))
        state, metrics = step(state, global_batch(batch, mesh))
        return metrics, jax.tree.map(lambda x, y: x - np.asarray(y), before, state.params)

    return found


@pytest.mark.parametrize(("rows", "kept", "shape"), [(3, 7, (1, 1, 1)), (1, 2, (2, 2, 2)), (1, 1, (8, 1, 1))])
def test_chunks_change_nothing(stepped, rows, kept, shape):
    """Chunks of which no row is kept are on every mesh in objectives/test_equality.py."""
    expected, found = stepped(0, 0, (1, 1, 1)), stepped(rows, kept, shape)
    for name, value in expected[0].items():
        np.testing.assert_allclose(found[0][name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected[1]))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * largest), found[1], expected[1])


def test_dropout_is_on(dropping, batch, random_params):
    params, ids = random_params(dropping.abstract_params()), jnp.asarray(batch["query"])
    dense = jax.jit(lambda ids, rng: dropping(params, ids, "query", rng).dense)
    embedded = [np.asarray(dense(ids, rng)) for rng in (None, *jax.random.split(jax.random.key(0)))]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(embedded, embedded[1:], strict=False))
    same = jnp.repeat(ids[5:6], 4, axis=0)
    rows = np.asarray(dense(same, jax.random.key(0)))
    assert len({row.tobytes() for row in rows}) == 4, "rows with the same text lose different elements"


@pytest.fixture(scope="module")
def compiled():
    """The gradient of four layers of `WIDTH`, `ROWS` rows of `LENGTH`, in chunks of so many rows, so many kept."""

    def apply(params, x):
        for _ in range(4):
            x = jnp.tanh(x @ params)
        return x[:, 0]

    @functools.cache
    def gradient(chunk, kept=0):
        def total(params, x):
            found = in_chunks(apply, params, x, chunk, kept) if chunk else apply(params, x)
            return jnp.sum(found**2)

        params = jax.ShapeDtypeStruct((WIDTH, WIDTH), "float32")
        x = jax.ShapeDtypeStruct((ROWS, LENGTH, WIDTH), "float32")
        return jax.jit(jax.grad(total)).lower(params, x).compile()

    return gradient


def test_memory_is_that_of_a_chunk(compiled):
    sizes = [(0, 0), (8, 0), (64, 0), (8, 64), (8, 128)]
    held = {each: compiled(*each).memory_analysis().temp_size_in_bytes for each in sizes}
    whole = ROWS * LENGTH * WIDTH * 4
    assert held[0, 0] > 4 * whole and held[8, 0] < 2 * whole < held[64, 0] + whole, held
    assert held[8, 0] + whole / 2 < held[8, 64] < held[8, 128] - whole / 2 < held[0, 0] - whole, held


@pytest.mark.parametrize(
    ("chunk", "kept", "again", "filled"),
    [(8, 0, 256, 0), (100, 0, 256, 2), (8, 56, 200, 0), (128, 128, 128, 0), (9, 256, 0, 0), (256, 0, 0, 0)],
)
def test_kept_rows_are_not_computed_again(compiled, chunk, kept, again, filled):
    """A row costs four products forwards and seven backwards; chunks are even, 86 rows each where 100 may be."""
    flops = [costs(Program(compiled(*sizes).as_text())).flops for sizes in ((0, 0), (chunk, kept))]
    assert flops[1] - flops[0] == 2 * LENGTH * WIDTH**2 * (4 * again + (4 + 4 + 7) * filled)


def test_remat_changes_the_memory_alone(dropping, random_params):
    encoder = dataclasses.replace(dropping.config.encoder, num_layers=6)
    deep = dataclasses.replace(dropping, config=dataclasses.replace(dropping.config, encoder=encoder))
    params, ids = random_params(deep.abstract_params()), jnp.asarray(np.random.default_rng(0).integers(3, 99, (32, 24)))
    found, held, loops = {}, {}, {}
    for remat, unrolled in [*((remat, False) for remat in REMATS), ("products", True)]:
        model = dataclasses.replace(deep, remat=remat, unrolled=unrolled)

        def loss(params, model=model):
            return jnp.sum(model(params, ids, "query", jax.random.key(0)).dense[:, 0])

        lowered, way = jax.jit(jax.grad(loss)).lower(params), "unrolled" if unrolled else remat
        program, loops[way] = lowered.compile(), lowered.as_text().count("stablehlo.while")
        found[way], held[way] = program(params), program.memory_analysis().temp_size_in_bytes
    for way in ("products", "full", "unrolled"):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), found[way], found["none"])
    assert held["full"] < held["products"] < held["none"]
    assert loops["unrolled"] < loops["products"]
