"""Tiles and rings change nothing: the loss, the gradients and the metrics are those of the whole matrix."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxret.runtime.mesh import device_mesh
from jaxret.train.objectives.contrastive import contrast
from jaxret.train.objectives.represented import Represented, objective_over
from jaxret.train.objectives.tiled import tiled_contrast
from jaxret.train.program import global_batch, step_program
from jaxret.train.step import fresh_state
from tests.train.objectives.embeddings import HEADS, example

KNOBS = {
    "temperature": {"dense": 0.5, "lexical": 2.0, "multi_vector": 1.5},
    "weight": {"dense": 1.0, "lexical": 0.25, "multi_vector": 2.0},
}
DESCENT = optax.sgd(1.0)


def valued(compare, r, batch, **sizes):
    """Loss, metrics, and the gradients of all floats of the embeddings."""
    leaves, structure = jax.tree.flatten((r.query, r.passage))
    smooth = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]

    def loss(floats):
        whole = list(leaves)
        for i, x in zip(smooth, floats, strict=True):
            whole[i] = x
        return compare(Represented(*jax.tree.unflatten(structure, whole)), batch, **sizes, **KNOBS)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))([leaves[i] for i in smooth])


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 4), (4, 5), (100, 100)])
def test_tiles_are_the_whole(rows, columns):
    r, batch = example(b=5, n=3)
    batch["positive_keys"] = jnp.stack([batch["passage_key"][:, 0], jnp.array([-1, 104, -1, -1, 100])], 1)
    (loss, metrics), gradients = valued(contrast, r, batch)
    (found, same), others = valued(tiled_contrast, r, batch, rows=rows, columns=columns)
    np.testing.assert_allclose(found, loss, rtol=1e-6)
    assert same.keys() == metrics.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(same[name], value, rtol=1e-6, err_msg=name)
    for x, y in zip(others, gradients, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    assert sum(np.abs(x).max() > 1e-3 for x in gradients) == len(gradients)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures_are_finite(temperature):
    r, batch = example()
    whole = {"temperature": dict.fromkeys(HEADS, temperature), "weight": dict.fromkeys(HEADS, 1.0)}

    def loss(dense):
        return tiled_contrast(r.replace(query=r.query.replace(dense=dense)), batch, **whole)[0]

    value, gradient = jax.value_and_grad(loss)(r.query.dense)
    np.testing.assert_allclose(value, contrast(r, batch, **whole)[0], rtol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_every_mesh_and_chunk_gives_the_same_step(model, random_params, shape):
    random = np.random.default_rng(0)
    query = random.integers(3, model.tokenizer.size, (16, 6)).astype(np.int32)
    passage = random.integers(3, model.tokenizer.size, (16, 2, 9)).astype(np.int32)
    query[:5, 4:], passage[3:9, 1, 5:] = -1, -1
    key = np.arange(32, dtype=np.int32).reshape(16, 2)
    passage[7, 0], key[7, 0] = passage[2, 1], key[2, 1]
    batch = {"query": query, "passage": passage, "passage_key": key}

    def stepped(compare, shape, rows):
        mesh = device_mesh(shape, jax.devices()[: np.prod(shape)])
        objective = objective_over([functools.partial(compare, **KNOBS)])
        chunked = dataclasses.replace(model, chunk_rows=rows)
        step, abstract = step_program(chunked, objective, DESCENT, 0, mesh)
        params = random_params(model.abstract_params())
        before = jax.tree.map(np.asarray, params)
        state = fresh_state(params, DESCENT, jnp.zeros((), jnp.int32))
        state = jax.device_put(state, jax.tree.map(lambda x: x.sharding, abstract))
        state, metrics = step(state, global_batch(batch, mesh))
        return metrics, jax.tree.map(lambda x, y: x - np.asarray(y), before, state.params)

    expected = stepped(contrast, (1, 1, 1), 0)
    found = stepped(functools.partial(tiled_contrast, rows=3, columns=2), shape, 3)
    for name, value in expected[0].items():
        np.testing.assert_allclose(found[0][name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected[1]))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * largest), found[1], expected[1])
