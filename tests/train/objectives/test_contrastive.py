import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.train.objectives.contrastive import contrastive
from jaxret.train.objectives.represented import candidates, positives
from tests.train.objectives.embeddings import HEADS, known, nll, table

B, N = 4, 2
TEMPERATURE = {"dense": 0.5, "lexical": 2.0, "multi_vector": 1.5}
WEIGHT = {"dense": 1.0, "lexical": 0.25, "multi_vector": 2.0}


def example(model):
    random = np.random.default_rng(0)
    query = random.integers(7, model.tokenizer.size, (B, 6)).astype(np.int32)
    passage = random.integers(7, model.tokenizer.size, (B, N, 9)).astype(np.int32)
    query[0, 4:], passage[1, 1, 5:], passage[2, 0, 7:] = 0, 0, 0
    query[:, 0], passage[:, :, 0] = 2, 2
    key = np.arange(B * N, dtype=np.int32).reshape(B, N) + 100
    # Query 3 has the positive of query 1, which is also a negative of query 2.
    for row, column in ((3, 0), (2, 1)):
        passage[row, column], key[row, column] = passage[1, 0], key[1, 0]
    return {"query": query, "passage": passage, "passage_key": key}


def loop(model, params, batch):
    """The loss of each head: one query, one passage at a time."""
    apply = jax.jit(model.apply, static_argnums=2)
    q = apply(params, jnp.asarray(batch["query"]), "query")
    d = apply(params, jnp.asarray(batch["passage"].reshape(B * N, -1)), "passage")
    own, losses, accuracy = np.arange(B) * N, {}, {}
    for head in HEADS:
        scores = table(head, q, d)
        losses[head] = nll(scores / TEMPERATURE[head], own, known(batch)).mean()
        accuracy[head] = np.mean(np.argmax(scores, axis=1) == own)
    return losses, accuracy


@pytest.fixture(scope="module")
def params(model, random_params):
    return random_params(model.abstract_params())


@pytest.fixture(scope="module")
def objective(model, params):
    knobs = {"temperature": TEMPERATURE, "weight": WEIGHT}
    program = jax.jit(functools.partial(contrastive, model, **knobs))
    return lambda batch: program(params, {"kept": jnp.ones(2)}, batch, jax.random.key(0))


def test_the_loss_equals_a_loop_over_every_pair(model, params, objective):
    batch = example(model)
    loss, (state, metrics) = objective(batch)
    losses, accuracy = loop(model, params, batch)
    for head in TEMPERATURE:
        np.testing.assert_allclose(metrics[f"loss_{head}"], losses[head], rtol=1e-5)
        np.testing.assert_allclose(metrics[f"accuracy_{head}"], accuracy[head])
    np.testing.assert_allclose(loss, sum(WEIGHT[head] * losses[head] for head in losses), rtol=1e-5)
    np.testing.assert_array_equal(state["kept"], np.ones(2))
    # Queries 1 and 3 have a positive that is there three times, the others' is there once.
    assert metrics["effective_negatives"] == (2 * 5 + 2 * 7) / 4
    by_head = {f"{name}_{head}" for name in ("loss", "accuracy") for head in TEMPERATURE}
    assert set(metrics) == by_head | {"effective_negatives"}


def test_a_copy_of_the_positive_is_masked_by_its_key(model, objective):
    batch = example(model)
    distinct = batch | {"passage_key": np.arange(B * N, dtype=np.int32).reshape(B, N)}
    masked, whole = objective(batch)[0], objective(distinct)[0]
    assert masked < whole - 1e-2


def test_every_copy_of_the_own_positive_is_left_out():
    key = jnp.array([[1, 2], [3, 1], [1, 4]])
    expected = [[k != own for k in (1, 2, 3, 1, 1, 4)] for own in (1, 3, 1)]
    np.testing.assert_array_equal(candidates({"passage_key": key}), expected)


def test_positives_are_the_first_of_each_group():
    np.testing.assert_array_equal(positives({"passage_key": jnp.zeros((3, 4), int)}), [0, 4, 8])
