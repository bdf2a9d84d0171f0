import functools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.metric_learning import cosine_scores, euclidean_scores
from jaxret.train.objectives.contrastive import contrast
from jaxret.train.objectives.regularized import at_sizes, labelled_pairs, sparsity
from tests.train.objectives.embeddings import VOCABULARY, compiled, example, known, nll

OWN = np.arange(4) * 3


def spread(terms):
    table = np.zeros((len(terms.weights), VOCABULARY))
    for row, (ids, weights) in enumerate(zip(np.asarray(terms.ids), np.asarray(terms.weights), strict=True)):
        for token, weight in zip(ids, weights, strict=True):
            table[row, token] = max(table[row, token], weight)
    return table


@pytest.mark.parametrize(("step", "share"), [(0, 0.01), (4, 0.25), (9, 1.0), (30, 1.0)])
def test_sparsity_grows_with_the_square_of_the_step(step, share):
    r, batch = example()
    knobs = {"query_flops": 2.0, "passage_flops": 3.0, "query_norm": 0.5, "passage_norm": 0.25}
    loss, metrics = compiled(sparsity, ramp_steps=10, **knobs)(r, batch, jnp.int32(step))
    q, d = spread(r.query.lexical), spread(r.passage.lexical)
    expected = 2 * np.sum(q.mean(0) ** 2) + 3 * np.sum(d.mean(0) ** 2) + 0.5 * q.sum(1).mean() + 0.25 * d.sum(1).mean()
    np.testing.assert_allclose(loss, share * expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["active_passage"], (d > 0).sum(1).mean())


def test_shorter_vectors_are_compared_too():
    r, batch = example()
    comparison = functools.partial(contrast, temperature={"dense": 0.3}, weight={"dense": 2.0})
    loss, metrics = compiled(at_sizes, comparison=comparison, sizes=(5, 2), weight=(1.0, 0.5))(r, batch, 0)
    total = 0.0
    for size, share in ((5, 1.0), (2, 0.5)):
        q, d = (np.asarray(e.dense)[:, :size] for e in (r.query, r.passage))
        q, d = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, d))
        losses = nll(q @ d.T / 0.3, OWN, known(batch))
        np.testing.assert_allclose(metrics[f"loss_dense_{size}"], losses.mean(), rtol=1e-5)
        total += share * 2.0 * losses.mean()
    np.testing.assert_allclose(loss, total, rtol=1e-5)


@pytest.mark.parametrize("similarity", [cosine_scores, euclidean_scores])
@pytest.mark.parametrize("epsilon", [None, 0.25])
def test_labelled_pairs_are_a_loop_over_pairs(similarity, epsilon):
    r, batch = example()
    compare = compiled(labelled_pairs, temperature=0.4, miner_epsilon=epsilon, similarity=similarity)
    loss, metrics = compare(r, batch, 0)
    vectors = np.concatenate([r.query.dense, r.passage.dense]).astype(np.float64)
    keys = np.asarray(batch["passage_key"])
    labels = np.concatenate([keys[:, 0], keys.reshape(-1)])
    cosine = vectors @ vectors.T
    scores = cosine if similarity is cosine_scores else -np.sqrt(np.maximum(2 - 2 * cosine, 0))
    losses = []
    for i in range(len(labels)):
        positive = [j for j in range(len(labels)) if j != i and labels[j] == labels[i]]
        negative = [j for j in range(len(labels)) if labels[j] != labels[i]]
        if epsilon is not None and positive:
            best, worst = max(cosine[i, negative]), min(cosine[i, positive])
            positive = [j for j in positive if cosine[i, j] - epsilon < best]
            negative = [j for j in negative if cosine[i, j] + epsilon > worst]
        for j in positive if negative else []:
            among = [scores[i, j], *scores[i, negative]]
            losses.append(np.log(np.sum(np.exp(np.array(among) / 0.4))) - scores[i, j] / 0.4)
    assert metrics["positive_pairs"] == len(losses) > 0
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-4)
