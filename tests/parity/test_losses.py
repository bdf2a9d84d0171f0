"""Our losses against those of the original libraries, values and gradients, from goldens that make_losses wrote."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops import contrastive, distillation, masked_lm, metric_learning, ranking, relevance, sparsity
from jaxret.ops.lexical import lexical_scores
from jaxret.ops.matryoshka import matryoshka
from jaxret.ops.maxsim import maxsim, mean_maxsim
from jaxret.ops.vectors import unit
from tests.parity.tolerances import LAYER

with np.load(Path(__file__).parents[1] / "goldens" / "losses.npz", allow_pickle=False) as file:
    GOLDEN = dict(file)
INPUTS = {name.removeprefix("inputs/"): x for name, x in GOLDEN.items() if name.startswith("inputs/")}
B, WAYS = INPUTS["teacher"].shape
POSITIVE = jnp.arange(B, dtype=jnp.int32) * WAYS
OWN = np.repeat(np.eye(B, dtype=bool), WAYS, axis=1)
Inputs = SimpleNamespace
Loss = Callable[[Inputs], jax.Array]


def cosines(x: Inputs) -> jax.Array:
    return unit(x.q) @ unit(x.d).T


def grouped(scores: jax.Array) -> jax.Array:
    """Each query's own documents, from `[b b*n]`."""
    return scores.reshape(B, B, WAYS)[jnp.arange(B), jnp.arange(B)]


def token_scores(x: Inputs, mask: jax.Array | None = None) -> jax.Array:
    q, d = unit(x.q_tokens), unit(x.d_tokens)
    return maxsim(q, d, jnp.ones(q.shape[:2], bool), jnp.ones(d.shape[:2], bool) if mask is None else mask)


def improved(x: Inputs, **weights: float) -> jax.Array:
    q, d = unit(x.q), unit(x.d)
    blocks = q @ d.T, q @ q.T, d[::WAYS] @ d.T
    return jnp.mean(contrastive.improved_contrastive(*blocks, POSITIVE, 0.05, d_where=jnp.asarray(~OWN), **weights))


def sigmoid_pairs(x: Inputs) -> jax.Array:
    return contrastive.sigmoid_pairs(x.q @ x.d.T, jnp.asarray(OWN), 0.5, -1.0)


def pair_and_in_batch(x: Inputs) -> jax.Array:
    return jnp.mean(contrastive.pair_and_in_batch(token_scores(x, x.d_mask != 0), POSITIVE, WAYS))


def context_prediction(x: Inputs) -> jax.Array:
    """XLM-K also compares a sentence with the other sentences of its own side: further columns of the bank."""
    centers, contexts, bank = unit(x.q), unit(x.d[::WAYS]), unit(x.bank)
    same = x.language[:, None] == x.language[None, :]
    own_side = same & ~jnp.eye(B, dtype=bool)
    center_bank, context_bank = (y @ jnp.concatenate([y, bank]).T for y in (centers, contexts))
    remembered = x.language[:, None] == x.bank_language[None, :]
    masks = {"where": same, "bank_where": jnp.concatenate([own_side, remembered], axis=1)}
    scores = centers @ contexts.T
    return jnp.sum(contrastive.context_prediction(scores, center_bank, context_bank, 0.1, **masks))


def nt_xent(scores: Callable[..., jax.Array], mined: bool) -> Loss:
    """LUSIFER's miner looks at cosines, whatever the loss compares."""

    def loss(x: Inputs) -> jax.Array:
        table, (positive, negative) = scores(x.vectors, x.vectors), metric_learning.label_pairs(x.labels)
        if mined:
            positive, negative = metric_learning.multi_similarity_pairs(
                COSINE(x.vectors, x.vectors), positive, negative, 0.25
            )
        return jnp.sum(metric_learning.nt_xent(table, positive, negative, 0.05)) / jnp.sum(positive)

    return loss


def kl_divergence(x: Inputs) -> jax.Array:
    """sentence-transformers multiplies by the square of the temperature."""
    return 4 * jnp.mean(distillation.kl_divergence(grouped(x.q @ x.d.T), x.teacher, 2.0, 2.0))


def pylate_distillation(x: Inputs) -> jax.Array:
    return jnp.mean(distillation.kl_divergence(distillation.min_max(grouped(token_scores(x))), x.teacher))


def ranked_distillation(x: Inputs) -> jax.Array:
    candidates = jnp.arange(B * WAYS, dtype=jnp.int32).reshape(B, WAYS)
    return jnp.mean(distillation.ranked_distillation(x.q @ x.d.T, candidates, x.teacher))


def bge_m3(x: Inputs) -> jax.Array:
    """Its weights, and half of each: what every head and the ensemble make of the labels, and heads of the ensemble."""
    masks = [jnp.ones(y.shape[:2], bool) for y in (x.q_tokens, x.d_tokens)]
    scores = {"dense": x.q @ x.d.T, "lexical": lexical_scores(x.q_lexical, x.d_lexical)}
    scores["multi_vector"] = mean_maxsim(x.q_tokens, x.d_tokens, *masks)
    ensemble = distillation.ensemble_scores(scores, {"dense": 1.0, "lexical": 0.3, "multi_vector": 1.0})
    labels, teacher = contrastive.info_nce(ensemble, POSITIVE, 0.02) / 4, jnp.zeros(())
    for head, weight in (("dense", 1.0), ("lexical", 0.1), ("multi_vector", 1.0)):
        labels += weight * contrastive.info_nce(scores[head], POSITIVE, 0.02) / 4
        teacher += weight * distillation.self_distillation(scores[head], ensemble, 0.02) / 3
    return jnp.mean(labels + teacher) / 2


def mean_over_pairs(weighting: ranking.Weighting) -> Loss:
    """sentence-transformers divides by the number of pairs."""

    def loss(x: Inputs) -> jax.Array:
        pairs = x.relevance[:, :, None] > x.relevance[:, None, :]
        return ranking.lambda_loss(x.scores, x.relevance, weighting=weighting) / jnp.sum(pairs, axis=(1, 2))

    return loss


def list_net(x: Inputs) -> jax.Array:
    """sentence-transformers makes shares of the relevance grades with a softmax."""
    return relevance.softmax_cross_entropy(x.scores, jax.nn.softmax(jnp.float32(x.relevance)))


def matryoshka_loss(x: Inputs) -> jax.Array:
    def loss(q: jax.Array, d: jax.Array) -> jax.Array:
        return contrastive.info_nce(q @ d.T, POSITIVE, 0.05)

    return jnp.mean(matryoshka(loss, (x.q, x.d), (6, 2), (1.0, 0.5)))


COSINE, EUCLIDEAN = metric_learning.cosine_scores, metric_learning.euclidean_scores
CASES: dict[str, Loss] = {
    "info_nce": lambda x: jnp.mean(contrastive.info_nce(cosines(x), POSITIVE, 0.05)),
    "symmetric_info_nce": lambda x: jnp.mean(contrastive.symmetric_info_nce(cosines(x), POSITIVE, 0.05)),
    "improved_contrastive": lambda x: improved(x, delta=1.0),
    "improved_contrastive_queries": lambda x: improved(x, gamma=0.0),
    "sigmoid_pairs": sigmoid_pairs,
    "pair_and_in_batch": pair_and_in_batch,
    "pylate_contrastive": lambda x: jnp.mean(contrastive.info_nce(token_scores(x), POSITIVE, 0.3)),
    "context_prediction": context_prediction,
    "nt_xent_cosine": nt_xent(COSINE, mined=False),
    "nt_xent_cosine_mined": nt_xent(COSINE, mined=True),
    "nt_xent_euclidean": nt_xent(EUCLIDEAN, mined=False),
    "nt_xent_euclidean_mined": nt_xent(EUCLIDEAN, mined=True),
    "kl_divergence": kl_divergence,
    "pylate_distillation": pylate_distillation,
    "soft_cross_entropy": lambda x: jnp.mean(distillation.soft_cross_entropy(x.scores, x.target[:, 0])),
    "ranked_distillation": ranked_distillation,
    "bge_m3": bge_m3,
    "margin_mse": lambda x: jnp.mean(distillation.margin_mse(grouped(x.q @ x.d.T), x.teacher)),
    "embedding_mse": lambda x: jnp.mean(distillation.embedding_mse(x.q, x.d[::WAYS])),
    "ranknet": lambda x: ranking.ranknet(x.scores, x.relevance),
    "list_mle": lambda x: ranking.list_mle(x.scores, x.relevance),
    "lambda_rank": mean_over_pairs(ranking.lambda_rank),
    "ndcg_loss_2": mean_over_pairs(ranking.ndcg_loss_2),
    "ndcg_loss_2pp": mean_over_pairs(ranking.ndcg_loss_2pp),
    "binary_cross_entropy": lambda x: relevance.binary_cross_entropy(x.scores, x.q_lexical),
    "score_mse": lambda x: relevance.score_mse(x.scores, x.q_lexical),
    "softmax_cross_entropy": list_net,
    "flops": lambda x: sparsity.flops(x.d_lexical),
    "matryoshka": matryoshka_loss,
    "masked_lm": lambda x: jnp.ravel(masked_lm.masked_lm(x.logits, x.token_ids)),
    "masked_lm_distillation": lambda x: jnp.ravel(masked_lm.masked_lm_distillation(x.logits, x.target, 2.0)),
}


def test_every_golden_has_its_test_and_differs_from_all_others():
    assert {name.split("/")[0] for name in GOLDEN} - {"inputs", "versions"} == set(CASES)
    assert len({float(np.sum(GOLDEN[f"{case}/value"])) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_are_those_of_the_original(case):
    goldens = {name.split("/")[1]: x for name, x in GOLDEN.items() if name.startswith(f"{case}/")}
    fixed = {name: jnp.asarray(x) for name, x in INPUTS.items() if name not in goldens}
    learnt = {name: jnp.asarray(INPUTS[name]) for name in goldens if name != "value"}

    @jax.jit
    def found(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
        value, pull = jax.vjp(lambda arrays: CASES[case](Inputs(**fixed, **arrays)), arrays)
        return {"value": value} | pull(jnp.ones_like(value))[0]

    ours = jax.device_get(found(learnt))
    assert learnt
    for name, theirs in goldens.items():
        scale = np.abs(theirs).max()
        assert scale > 0 and ours[name].shape == theirs.shape
        np.testing.assert_allclose(ours[name], theirs, rtol=0, atol=LAYER * scale, err_msg=f"{case} {name}")
