import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.distillation import kl_divergence, margin_mse, min_max
from jaxret.train.objectives.distillation import distill, distill_ranked, self_distill
from tests.train.objectives.embeddings import HEADS, compiled, example, known, nll, table

WEIGHT = {"dense": 1.0, "lexical": 0.1, "multi_vector": 2.0}
OWN = np.arange(4) * 3


def shares(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def own_scores(head, r):
    whole = table(head, r.query, r.passage)
    return np.array([whole[i, i * 3 : i * 3 + 3] for i in range(4)])


def scaled(x):
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    return (x - low) / (high - low + 1e-8)


@pytest.mark.parametrize("scale", [None, min_max])
def test_kl_divergence_from_the_teacher(scale):
    r, batch = example()
    knobs = {} if scale is None else {"scale": scale, "teacher_scale": scale}
    loss, _ = compiled(distill, weight=WEIGHT, loss=functools.partial(kl_divergence, temperature=0.5), **knobs)(
        r, batch
    )
    total = 0.0
    for head in HEADS:
        scores, teacher = own_scores(head, r), np.asarray(batch["teacher_scores"], np.float64)
        if scale is not None:
            scores, teacher = scaled(scores), scaled(teacher)
        p, s = shares(teacher), shares(scores / 0.5)
        total += WEIGHT[head] * np.sum(p * np.log(p / s)) / 4
    np.testing.assert_allclose(loss, total, rtol=1e-5)


def test_margin_mse_is_a_loss_like_any_other():
    r, batch = example()
    loss, metrics = compiled(distill, weight=WEIGHT, loss=margin_mse)(r, batch)
    teacher, total = np.asarray(batch["teacher_scores"]), 0.0
    for head in HEADS:
        scores = own_scores(head, r)
        errors = (scores[:, :1] - scores[:, 1:]) - (teacher[:, :1] - teacher[:, 1:])
        np.testing.assert_allclose(metrics[f"distillation_{head}"], np.mean(errors**2), rtol=1e-5)
        total += WEIGHT[head] * np.mean(errors**2)
    np.testing.assert_allclose(loss, total, rtol=1e-5)


def test_ranked_distillation_takes_better_candidates_away_one_by_one():
    r, batch = example()
    temperature = dict.fromkeys(HEADS, 0.7)
    compare = compiled(distill_ranked, temperature=temperature, weight=WEIGHT, teacher_temperature=2.0)
    loss, _ = compare(r, batch)
    teacher, kept, total = np.asarray(batch["teacher_scores"]), known(batch), 0.0
    for head in HEADS:
        logits, losses = table(head, r.query, r.passage) / 0.7, []
        for i in range(4):
            left = {j for j in range(12) if kept[i, j] or j // 3 == i}
            share, loss_of_query = shares(teacher[i] / 2.0), 0.0
            for way in np.argsort(-teacher[i]):
                among = np.log(np.sum(np.exp([logits[i, j] for j in left])))
                loss_of_query += share[way] * (among - logits[i, i * 3 + way])
                left.remove(i * 3 + way)
            losses.append(loss_of_query)
        total += WEIGHT[head] * np.mean(losses)
    np.testing.assert_allclose(loss, total, rtol=1e-5)


ENSEMBLE = {"dense": 1.0, "lexical": 0.3, "multi_vector": 1.0}


@pytest.mark.parametrize("step", [4, 5])
def test_self_distillation_is_bge_m3s_sum(step):
    r, batch = example()
    knobs = {"temperature": 0.5, "ensemble": ENSEMBLE, "weight": WEIGHT, "start": 5}
    loss, _ = compiled(self_distill, **knobs)(r, batch, jnp.int32(step))
    heads = {head: table(head, r.query, r.passage) / 0.5 for head in HEADS}
    together = sum(ENSEMBLE[head] * heads[head] for head in HEADS)
    kept, labels, taught = known(batch), nll(together, OWN, known(batch)).mean(), 0.0
    for head in HEADS:
        labels += WEIGHT[head] * nll(heads[head], OWN, kept).mean()
        losses = []
        for i in range(4):
            columns = [j for j in range(12) if kept[i, j] or j == OWN[i]]
            losses.append(-np.sum(shares(together[i, columns]) * np.log(shares(heads[head][i, columns]))))
        taught += WEIGHT[head] * np.mean(losses)
    expected = labels / 4 if step < 5 else (labels / 4 + taught / 3) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_ensemble_gets_no_gradient_as_a_teacher():
    """The head of weight 0 still stands in the ensemble; nothing but the labels of the ensemble reaches it."""
    r, batch = example()
    knobs = {"temperature": 0.5, "ensemble": ENSEMBLE, "weight": WEIGHT | {"dense": 0.0}}

    def gradient(start):
        def loss(dense):
            query = r.query.replace(dense=dense)
            return self_distill(r.replace(query=query), batch, jnp.int32(0), start=start, **knobs)[0]

        return jax.jit(jax.grad(loss))(r.query.dense)

    np.testing.assert_allclose(gradient(start=0), gradient(start=1) / 2, rtol=1e-5, atol=1e-7)
