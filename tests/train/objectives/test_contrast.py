import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.contrastive import pair_and_in_batch
from jaxret.train.objectives.contrastive import contrast, improved_contrast
from jaxret.train.objectives.represented import candidates, group_scores
from tests.train.objectives.embeddings import HEADS, compiled, example, known, nll, table

TEMPERATURE = {"dense": 0.5, "lexical": 2.0, "multi_vector": 1.5}
WEIGHT = {"dense": 1.0, "lexical": 0.25, "multi_vector": 2.0}
KNOBS = {"temperature": TEMPERATURE, "weight": WEIGHT}
OWN = np.arange(4) * 3


def test_group_scores_are_those_of_the_own_passages():
    r, _ = example()
    for head, found in group_scores(r).items():
        whole = table(head, r.query, r.passage)
        expected = np.array([whole[i, i * 3 : i * 3 + 3] for i in range(4)])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_colberts_loss_is_bound_as_a_function():
    r, batch = example()
    loss, metrics = compiled(contrast, loss=functools.partial(pair_and_in_batch, ways=3), **KNOBS)(r, batch)
    total = 0.0
    for head in HEADS:
        logits = table(head, r.query, r.passage) / TEMPERATURE[head]
        mine = np.arange(12)[None, :] // 3 == np.arange(4)[:, None]
        expected = nll(logits, OWN, mine & known(batch)) + nll(logits, OWN, ~mine & known(batch))
        np.testing.assert_allclose(metrics[f"loss_{head}"], expected.mean(), rtol=1e-5)
        total += WEIGHT[head] * expected.mean()
    np.testing.assert_allclose(loss, total, rtol=1e-5)


def test_all_known_positives_are_left_out():
    _, batch = example()
    batch["positive_keys"] = jnp.array([[100, 105, -1], [103, -1, -1], [106, 100, 111], [103, 999, -1]])
    expected = np.ones((4, 12), bool)
    for row, keys in enumerate(batch["positive_keys"].tolist()):
        for column, key in enumerate(np.asarray(batch["passage_key"]).reshape(-1).tolist()):
            expected[row, column] = key not in keys
    np.testing.assert_array_equal(candidates(batch), expected)


@pytest.mark.parametrize(("margin", "relative"), [(0.0, 0.0), (1.0, 0.0), (0.0, 0.5), (-2.0, 0.1)])
def test_own_negatives_that_the_teacher_likes_are_left_out(margin, relative):
    _, batch = example()
    teacher, expected = np.asarray(batch["teacher_scores"]), known(batch)
    for row in range(4):
        for way in range(3):
            ceiling = teacher[row, 0] - margin - relative * abs(teacher[row, 0])
            expected[row, row * 3 + way] &= teacher[row, way] <= ceiling
    np.testing.assert_array_equal(candidates(batch, margin, relative), expected)
    assert not expected[0, :3].all()


@pytest.mark.parametrize("compare", [contrast, improved_contrast])
def test_known_texts_can_be_left_in(compare):
    r, batch = example()
    everything_else = np.arange(12)[None, :] != OWN[:, None]
    np.testing.assert_array_equal(candidates(batch, known=False), everything_else)
    assert not (known(batch) == everything_else).all()
    other = {**batch, "passage_key": jnp.arange(12).reshape(4, 3)}  # no copies
    expected = compiled(compare, **KNOBS)(r, other)[0]
    np.testing.assert_allclose(compiled(compare, mask_known=False, **KNOBS)(r, batch)[0], expected, rtol=1e-6)
    assert abs(compiled(compare, **KNOBS)(r, batch)[0] - expected) > 1e-4


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 0.0), (1.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)])
def test_improved_contrast_is_a_loop_over_all_that_competes(weights):
    alpha, beta, gamma, delta = weights
    r, batch = example()
    settings = {"alpha": alpha, "beta": beta, "gamma": gamma, "delta": delta}
    loss, _ = compiled(improved_contrast, **settings, **KNOBS)(r, batch)
    mine = jax.tree.map(lambda x: x[::3], r.passage)
    kept, total = known(batch), 0.0
    for head in HEADS:
        q_d, q_q = table(head, r.query, r.passage), table(head, r.query, r.query)
        d_d, rows = table(head, mine, r.passage), []
        for i in range(4):
            exps = [np.exp(q_d[i, OWN[i]] / TEMPERATURE[head])]
            for j in range(12):
                if j != OWN[i] and kept[i, j]:
                    exps += [alpha * np.exp(q_d[i, j] / TEMPERATURE[head])]
                    exps += [gamma * np.exp(d_d[i, j] / TEMPERATURE[head])]
            for j in range(4):
                if j != i and kept[i, OWN[j]]:
                    exps += [beta * np.exp(q_q[i, j] / TEMPERATURE[head])]
                if j == i or kept[j, OWN[i]]:
                    exps += [delta * np.exp(q_d[j, OWN[i]] / TEMPERATURE[head])]
            rows.append(np.log(np.sum(exps)) - q_d[i, OWN[i]] / TEMPERATURE[head])
        total += WEIGHT[head] * np.mean(rows)
    np.testing.assert_allclose(loss, total, rtol=1e-5)
