"""Tiles and rings change nothing: the loss, the gradients and the metrics are those of the whole matrix."""

import dataclasses
import functools
import math
from functools import partial

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxret.ops.contrastive import info_nce, pair_and_in_batch, symmetric_info_nce
from jaxret.ops.tiled_contrastive import tiled_info_nce, tiled_pair_and_in_batch, tiled_symmetric_info_nce
from jaxret.runtime.mesh import device_mesh
from jaxret.train.objectives.contrastive import contrast, improved_contrast
from jaxret.train.objectives.represented import objective_over
from jaxret.train.objectives.tiled import tiled_contrast, tiled_improved_contrast
from jaxret.train.program import global_batch, step_program
from jaxret.train.step import fresh_state
from tests.train.objectives.embeddings import HEADS, example

TEMPERATURE = {"dense": 0.5, "lexical": 2.0, "multi_vector": 1.5}
WEIGHT = {"dense": 1.0, "lexical": 0.25, "multi_vector": 2.0}
KNOBS = {"temperature": TEMPERATURE, "weight": WEIGHT}
DESCENT = optax.sgd(1.0)
SOME = {"alpha": 0.7, "beta": 0.5, "gamma": 0.3, "delta": 0.2}
NONE = dict.fromkeys(SOME, 0.0)
TEACHER = {"teacher_margin": 1.0, "relative_teacher_margin": 0.5}


def both(loss, tiled_loss, **knobs):
    return partial(contrast, loss=loss, **knobs), partial(tiled_contrast, loss=tiled_loss, **knobs)


def improved(**knobs):
    return partial(improved_contrast, **knobs), partial(tiled_improved_contrast, **knobs)


PAIRS = {
    "info_nce": both(info_nce, tiled_info_nce),
    "unmasked": both(info_nce, tiled_info_nce, mask_known=False),
    "teacher, unmasked": both(info_nce, tiled_info_nce, mask_known=False, **TEACHER),
    "symmetric": both(symmetric_info_nce, tiled_symmetric_info_nce, **TEACHER),
    "symmetric, unmasked": both(symmetric_info_nce, tiled_symmetric_info_nce, mask_known=False),
    "pair_and_in_batch": both(partial(pair_and_in_batch, ways=3), tiled_pair_and_in_batch, **TEACHER),
    "improved": improved(**SOME),
    "improved, unmasked": improved(mask_known=False, **SOME),
    **{f"{name} alone": improved(**NONE | {name: 0.6}) for name in SOME},
}
HEAD = {"symmetric": "multi_vector", "pair_and_in_batch": "multi_vector", "beta alone": "lexical"}
SIZES = [(1, 1), (3, 4), (4, 5), (100, 100)]  # rows and columns


def on(heads, r):
    """The embeddings without those of other heads."""
    missing = {name: None for name in ("dense", "lexical") if name not in heads}
    missing |= {} if "multi_vector" in heads else {"tokens": None, "mask": None}
    return r.replace(query=r.query.replace(**missing), passage=r.passage.replace(**missing))


def compared(heads, compare):
    """A comparison of these heads alone."""
    knobs = {"temperature": TEMPERATURE, "weight": {head: WEIGHT[head] for head in heads}}
    return lambda r, batch, step=None: compare(on(heads, r), batch, **knobs)


@functools.cache
def answered():
    """Queries with other texts that answer them: a passage of its own, positives of others. One passage has no key."""
    r, batch = example(b=5, n=3)
    batch["passage_key"] = batch["passage_key"].at[4, 2].set(-1)
    batch["positive_keys"] = jnp.array(
        [[100, -1, -1], [103, 104, -1], [106, 100, 106], [103, -1, 999], [112, 100, 108]]
    )
    return r, batch


def of_floats(compare, heads, r, batch):
    """The comparison as a function of all floats of the embeddings, and these."""
    leaves, structure = jax.tree.flatten(on(heads, r))
    smooth = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]

    def loss(floats):
        whole = list(leaves)
        for i, x in zip(smooth, floats, strict=True):
            whole[i] = x
        return compared(heads, compare)(jax.tree.unflatten(structure, whole), batch)

    return jax.value_and_grad(loss, has_aux=True), [leaves[i] for i in smooth]


@functools.cache
def valued(compare, heads):
    """Loss, metrics and gradients."""
    program, floats = of_floats(compare, heads, *answered())
    return jax.jit(program)(floats)


@pytest.mark.parametrize(
    ("name", "heads", "sizes"),
    [
        ("improved", ("lexical", "multi_vector"), (3, 4)),
        *((name, (HEAD.get(name, "dense"),), (3, 4)) for name in PAIRS),
        *((name, ("dense",), sizes) for name in ("symmetric", "improved") for sizes in SIZES if sizes != (3, 4)),
    ],
)
def test_tiles_are_the_whole(name, heads, sizes):
    plain, tiled = PAIRS[name]
    (loss, metrics), gradients = valued(plain, heads)
    (found, same), others = valued(partial(tiled, rows=sizes[0], columns=sizes[1]), heads)
    np.testing.assert_allclose(found, loss, rtol=1e-6)
    assert same.keys() == metrics.keys()
    for metric, value in metrics.items():
        np.testing.assert_allclose(same[metric], value, rtol=1e-6, err_msg=metric)
    for x, y in zip(others, gradients, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    assert sum(np.abs(x).max() > 1e-3 for x in gradients) == len(gradients)


@pytest.mark.parametrize("name", ["symmetric", "improved"])
@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures_are_finite(temperature, name):
    r, batch = answered()
    knobs = {"temperature": {"dense": temperature}, "weight": {"dense": 1.0}}

    def loss(dense, compare):
        return compare(on("dense", r.replace(query=r.query.replace(dense=dense))), batch, **knobs)[0]

    plain, tiled = (jax.jit(jax.value_and_grad(partial(loss, compare=x)))(r.query.dense) for x in PAIRS[name])
    np.testing.assert_allclose(tiled[0], plain[0], rtol=1e-5)
    assert np.isfinite(tiled[1]).all()


def largest_array(jaxpr):
    """The most numbers that one array of a program has, those inside its loops too."""
    found = [0]
    for equation in jaxpr.eqns:
        found += [math.prod(x.aval.shape) for x in equation.outvars]
        found += [largest_array(inner) for inner in jax.extend.core.jaxprs_in_params(equation.params)]
    return max(found)


@pytest.mark.parametrize("name", ["symmetric", "improved", "pair_and_in_batch"])
def test_no_matrix_of_scores_exists(name):
    r, batch = example(b=256, n=3)

    def held(compare):
        program, floats = of_floats(compare, HEADS, r, batch)
        return largest_array(jax.make_jaxpr(program)(floats).jaxpr)

    plain, tiled = PAIRS[name]
    assert held(partial(tiled, rows=16, columns=16)) < 256 * 256
    assert held(plain) >= 256 * 768


@pytest.fixture(scope="module")
def stepped(model, random_params):
    """Metrics and gradient of a step with both losses, in tiles or plain, on a mesh, so many texts at a time."""
    random = np.random.default_rng(0)
    query = random.integers(3, model.tokenizer.size, (16, 6)).astype(np.int32)
    passage = random.integers(3, model.tokenizer.size, (16, 2, 9)).astype(np.int32)
    query[:5, 4:], passage[3:9, 1, 5:] = -1, -1
    key = np.arange(32, dtype=np.int32).reshape(16, 2)
    passage[7, 0], key[7, 0] = passage[2, 1], key[2, 1]
    answers = np.stack([key[:, 0], np.where(np.arange(16) % 3 == 0, np.roll(key[:, 0], 5), -1)], 1)
    scores = random.normal(size=(16, 2)).astype(np.float32)
    batch = {"query": query, "passage": passage, "passage_key": key, "positive_keys": answers, "teacher_scores": scores}

    @functools.cache
    def found(tiled, shape, rows):
        mesh = device_mesh(shape, jax.devices()[: np.prod(shape)])
        sizes = {"rows": 3, "columns": 2} if tiled else {}
        symmetric, improved = (partial(PAIRS[name][tiled], **sizes) for name in ("symmetric", "improved"))
        objective = objective_over([compared(HEADS, symmetric), compared(("dense",), improved)])
        chunked = dataclasses.replace(model, chunk_rows=rows)
        step, abstract = step_program(chunked, objective, DESCENT, 0, mesh)
        params = random_params(model.abstract_params())
        before = jax.tree.map(np.asarray, params)
        state = fresh_state(params, DESCENT, jnp.zeros((), jnp.int32))
        state = jax.device_put(state, jax.tree.map(lambda x: x.sharding, abstract))
        state, metrics = step(state, global_batch(batch, mesh))
        return metrics, jax.tree.map(lambda x, y: x - np.asarray(y), before, state.params)

    return found


def test_a_mesh_and_chunks_give_the_same_step(stepped):
    expected, found = stepped(False, (1, 1, 1), 0), stepped(True, (2, 2, 2), 3)
    assert found[0].keys() == expected[0].keys()
    for name, value in expected[0].items():
        np.testing.assert_allclose(found[0][name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected[1]))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * largest), found[1], expected[1])
