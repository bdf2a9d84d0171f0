"""InfoNCE with in-batch and given negatives, for every head the model has, together."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.nn.retriever import Embeddings
from jaxret.ops.contrastive import info_nce
from jaxret.ops.lexical import lexical_scores
from jaxret.ops.maxsim import maxsim
from jaxret.runtime.mesh import all_pairs


def represent(apply: Any, params: Any, batch: dict[str, Array], rng: jax.Array) -> dict[str, Embeddings]:
    """Embeds the queries `[b s]` and the passages `[b n t]`, flattened to `[b*n t]`."""
    q_rng, d_rng = jax.random.split(rng)
    passages = batch["passage"].reshape(-1, batch["passage"].shape[-1])
    return {
        "query": apply(params, batch["query"], "query", q_rng),
        "passage": apply(params, passages, "passage", d_rng),
    }


def positives(num_queries: int, ways: int) -> Int[Array, " b"]:
    """The column of each query's own positive among `b*n` passages."""
    return jnp.arange(num_queries) * ways


def allowed(passage_key: Int[Array, "b n"]) -> Bool[Array, "b c"]:
    """False where another column holds a copy of the query's own positive passage."""
    return passage_key[:, :1] != passage_key.reshape(1, -1)


def head_scores(q: Any, d: Any) -> dict[str, Float[Array, "b c"]]:
    """The score matrix of every head that the Embeddings `q` and `d` have."""
    scores = {}
    if q.dense is not None and d.dense is not None:
        scores["dense"] = jnp.einsum("be,ce->bc", q.dense, d.dense, preferred_element_type=jnp.float32)
    if q.lexical is not None and d.lexical is not None:
        scores["lexical"] = lexical_scores(q.lexical.spread(), d.lexical.spread())
    if q.tokens is not None and d.tokens is not None:
        scores["multi_vector"] = maxsim(q.tokens, d.tokens, q.mask, d.mask)
    return scores


def contrastive(
    apply: Any,
    params: Any,
    state: Any,
    batch: dict[str, Array],
    rng: jax.Array,
    *,
    temperature: dict[str, float],
    weight: dict[str, float],
) -> tuple[Float[Array, ""], tuple[Any, dict[str, Float[Array, ""]]]]:
    """The weighted sum of each head's InfoNCE; every passage of the global batch is a candidate.

    Args:
      apply: `(params, token_ids, side, rng) -> Embeddings`.
      params: the parameters.
      state: carried unchanged.
      batch: `query [b s]`, `passage [b n t]` with the positive first, `passage_key [b n]`.
      rng: for dropout.
      temperature: by head.
      weight: by head.
    """
    embeddings = represent(apply, params, batch, rng)
    b, n = batch["passage_key"].shape
    positive, where = positives(b, n), allowed(batch["passage_key"])
    loss, metrics = jnp.zeros(()), {}
    for head, scores in all_pairs(head_scores, embeddings["query"], embeddings["passage"]).items():
        metrics[f"loss_{head}"] = jnp.mean(info_nce(scores, positive, temperature[head], where=where))
        metrics[f"accuracy_{head}"] = jnp.mean(jnp.argmax(scores, axis=1) == positive)
        loss += weight[head] * metrics[f"loss_{head}"]
    return loss, (state, metrics)
