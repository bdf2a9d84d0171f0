"""Losses of a cross-encoder against plain loops over its scores of single pairs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.distillation import kl_divergence, margin_mse
from jaxret.ops.ranking import lambda_loss, list_mle, ranknet
from jaxret.ops.relevance import binary_cross_entropy, score_mse, softmax_cross_entropy
from jaxret.train.objectives.cross_encoder import by_labels, by_teacher, cross_encoder, pair_scores
from tests.train.objectives import pairs

N = 3


@pytest.fixture(scope="module")
def model(tokenizer):
    return pairs.scorer(tokenizer)


@pytest.fixture(scope="module")
def params(model, random_params):
    return random_params(model.abstract_params())


@pytest.fixture(scope="module")
def batch(model):
    return {name: jnp.asarray(array) for name, array in pairs.batch(model, N).items()}


@pytest.fixture(scope="module")
def scores(model, params, batch):
    found = np.asarray(jax.jit(partial(pair_scores, model))(params, batch))
    alone = jax.jit(model.__call__)
    for i, j in ((0, 0), (3, 2), (7, 1)):
        ids, types = (np.asarray(batch[name][i, j]) for name in ("pair", "pair_types"))
        ids, types = ids[ids >= 0], types[ids >= 0]
        np.testing.assert_allclose(alone(params, ids[None], types[None])[0], found[i, j], atol=1e-5)
    assert np.ptp(found) > 0.05
    return found


def kept(i):
    """The columns of query i that take part."""
    return [0, 2] if i == 2 else [0, 1] if i == 5 else [0, 1, 2]


def log_softmax(s):
    return s - np.log(np.sum(np.exp(s)))


LABELLED = {
    binary_cross_entropy: lambda s: np.mean([np.log1p(np.exp(-s[0])), *np.log1p(np.exp(s[1:]))]),
    softmax_cross_entropy: lambda s: -log_softmax(s)[0],
    ranknet: lambda s: np.mean([np.log1p(np.exp(x - s[0])) for x in s[1:]]),
    list_mle: lambda s: sum(-log_softmax(s[n:])[0] for n in range(len(s))),
}


@pytest.mark.parametrize("loss", LABELLED, ids=lambda loss: loss.__name__)
def test_losses_by_labels(scores, batch, loss):
    found, metrics = jax.jit(partial(by_labels, loss=loss))(jnp.asarray(scores), batch)
    rows = [scores[i, kept(i)] for i in range(pairs.B)]
    np.testing.assert_allclose(found, np.mean([LABELLED[loss](row.astype(np.float64)) for row in rows]), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean([np.argmax(row) == 0 for row in rows]))


def test_lambda_loss_is_a_loss_by_labels(scores, batch):
    found, _ = by_labels(jnp.asarray(scores), batch, loss=partial(lambda_loss, k=2))
    assert found > 0 and found != by_labels(jnp.asarray(scores), batch, loss=ranknet)[0]


TAUGHT = {
    score_mse: lambda s, t: np.mean((s - t) ** 2),
    margin_mse: lambda s, t: np.mean(((s[0] - s[1:]) - (t[0] - t[1:])) ** 2),
    kl_divergence: lambda s, t: np.sum(np.exp(log_softmax(t)) * (log_softmax(t) - log_softmax(s))),
}


@pytest.mark.parametrize("loss", TAUGHT, ids=lambda loss: loss.__name__)
def test_losses_by_a_teacher(scores, batch, loss):
    found, metrics = jax.jit(partial(by_teacher, loss=loss))(jnp.asarray(scores), batch)
    rows = zip(scores, np.asarray(batch["teacher_scores"]), strict=True)
    np.testing.assert_allclose(found, np.mean([TAUGHT[loss](*row) for row in rows]), rtol=1e-4)
    assert metrics["loss_teacher"] == found


def test_parts_add_up_and_dropout_depends_on_the_key(model, params, batch, scores):
    parts = [by_labels, partial(by_teacher, loss=score_mse)]
    loss = jax.jit(partial(cross_encoder, model, parts=parts, weight=[1.0, 0.25]))
    state = {"kept": jnp.ones(())}
    values = [loss(params, state, batch, jax.random.key(seed)) for seed in (0, 0, 1)]
    assert values[0][0] == values[1][0] != values[2][0]
    total, (after, metrics) = values[0]
    np.testing.assert_allclose(total, metrics["loss_labels"] + 0.25 * metrics["loss_teacher"], rtol=1e-6)
    assert after == state and metrics.keys() == {"loss_labels", "accuracy", "loss_teacher"}
    bare = {name: array for name, array in batch.items() if name != "pair_types"}
    assert np.abs(np.asarray(jax.jit(partial(pair_scores, model))(params, bare)) - scores).max() > 1e-3


def test_every_parameter_learns_and_the_loss_falls(model, params, batch):
    @jax.jit
    @jax.value_and_grad
    def descent(params):
        # Of the pairs, each for itself: what a list is compared by does not change with the last bias.
        return by_labels(pair_scores(model, params, batch), batch, loss=binary_cross_entropy)[0]

    loss, gradient = descent(params)
    assert all(np.any(x) for x in jax.tree.leaves(gradient))
    for _ in range(20):
        params = jax.tree.map(lambda x, slope: x - 0.1 * slope, params, descent(params)[1])
    assert descent(params)[0] < loss - 0.02
