"""Objectives in two halves: embed the batch, then compare the embeddings. What compares knows no parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.errors import InputError
from jaxret.nn.retriever import Embeddings
from jaxret.ops.false_negatives import below_positive, other_texts
from jaxret.ops.lexical import lexical_scores
from jaxret.ops.maxsim import RULES
from jaxret.runtime.mesh import all_pairs
from jaxret.runtime.model import Model
from jaxret.train.objective import Objective

Batch = Mapping[str, Array]
Metrics = dict[str, Float[Array, ""]]
Comparison = Callable[..., tuple[Float[Array, ""], Metrics]]  # (represented, batch, step) -> (loss, metrics)


@flax.struct.dataclass
class Represented:
    """A batch's embeddings.

    Attributes:
      query: of the `b` queries.
      passage: of their `b*n` passages, each query's positive before its negatives.
      maxsim: the model's rule for scores of token vectors, see `ops.maxsim.RULES`.
    """

    query: Embeddings
    passage: Embeddings
    maxsim: str = flax.struct.field(pytree_node=False, default="exact")


def represented(model: Model, params: Any, batch: Batch, rng: jax.Array | None) -> Represented:
    """Embeds the queries `[b s]` and the passages `[b n t]`; without `rng` there is no dropout."""
    q_rng, d_rng = (None, None) if rng is None else jax.random.split(rng)
    passages = batch["passage"].reshape(-1, batch["passage"].shape[-1])
    query, passage = model(params, batch["query"], "query", q_rng), model(params, passages, "passage", d_rng)
    return Represented(query, passage, model.config.maxsim)


def objective_over(comparisons: Sequence[Comparison], weight: Sequence[float] | None = None) -> Objective:
    """The weighted sum of comparisons of one batch's embeddings; its state counts the steps, for schedules.

    Args:
      comparisons: `(represented, batch, step) -> (loss, metrics)`.
      weight: one each; all 1 by default.
    """
    weights = [1.0] * len(comparisons) if weight is None else weight

    def loss(model: Model, params: Any, step: Any, batch: Batch, rng: jax.Array) -> Any:
        embeddings = represented(model, params, batch, rng)
        total, metrics = jnp.zeros(()), Metrics()
        for compare, share in zip(comparisons, weights, strict=True):
            part, found = compare(embeddings, batch, step)
            total, metrics = total + share * part, metrics | found
        return total, (step + 1, metrics)

    return Objective(loss, lambda model, params, key: ({}, jnp.zeros((), jnp.int32)))


def dot_products(q: Float[Array, "b e"], d: Float[Array, "c e"]) -> Float[Array, "b c"]:
    """All dot products, in float32."""
    return jnp.einsum("be,ce->bc", q, d, preferred_element_type=jnp.float32)


def needed(embeddings: Embeddings, head: str) -> Any:
    """One head's part of the embeddings, by its name there; InputError where the model lacks it."""
    if (found := getattr(embeddings, head)) is None:
        raise InputError("train.objective", f"needs {head} embeddings", "Add the head to RetrieverConfig.heads.")
    return found


def pair_scores(maxsim: str, q: Any, d: Any) -> dict[str, Float[Array, "b c"]]:
    """The score matrix of every head that both Embeddings have, each row of `q` against each of `d`."""
    scores = {}
    if q.dense is not None and d.dense is not None:
        scores["dense"] = dot_products(q.dense, d.dense)
    if q.lexical is not None and d.lexical is not None:
        scores["lexical"] = lexical_scores(q.lexical.spread(), d.lexical.spread())
    if q.tokens is not None and d.tokens is not None:
        scores["multi_vector"] = RULES[maxsim](q.tokens, d.tokens, q.mask, d.mask)
    return scores


def batch_scores(r: Represented) -> dict[str, Float[Array, "b c"]]:
    """Scores of every query against every passage of the global batch, by head."""
    return all_pairs(lambda q, d: pair_scores(r.maxsim, q, d), r.query, r.passage)


def group_scores(r: Represented) -> dict[str, Float[Array, "b n"]]:
    """Scores of every query against its own passages, by head."""
    (queries, query), (passages, passage) = jax.tree.flatten(r.query), jax.tree.flatten(r.passage)
    rows = len(queries[0])

    def one(q: list[Array], d: list[Array]) -> dict[str, Float[Array, " n"]]:
        scores = pair_scores(r.maxsim, jax.tree.unflatten(query, [x[None] for x in q]), jax.tree.unflatten(passage, d))
        return {head: x[0] for head, x in scores.items()}

    return jax.vmap(one)(queries, [x.reshape(rows, -1, *x.shape[1:]) for x in passages])


def over_heads(
    name: str, losses: Mapping[str, Float[Array, " b"]], weight: Mapping[str, float]
) -> tuple[Float[Array, ""], Metrics]:
    """The weighted sum of each head's mean loss, and the means as `<name>_<head>`."""
    means = {head: jnp.mean(loss) for head, loss in losses.items()}
    total = sum((weight[head] * mean for head, mean in means.items()), jnp.zeros(()))
    return total, {f"{name}_{head}": mean for head, mean in means.items()}


def accuracies(scores: Mapping[str, Float[Array, "b c"]], own: Int[Array, " b"]) -> Metrics:
    """How often each head's best passage of the batch is the query's own positive, as `accuracy_<head>`."""
    return {f"accuracy_{head}": jnp.mean(jnp.argmax(x, axis=1) == own) for head, x in scores.items()}


def effective_negatives(where: Bool[Array, "b c"], own: Int[Array, " b"]) -> Metrics:
    """How many passages a query has as negatives in the mean, as `effective_negatives`.

    Args:
      where: which passages may count, see `candidates`.
      own: the column of each query's own positive.
    """
    others = where & (jnp.arange(where.shape[1])[None] != own[:, None])
    return {"effective_negatives": jnp.mean(jnp.sum(others, axis=1, dtype=jnp.float32))}


def positives(batch: Batch) -> Int[Array, " b"]:
    """The column of each query's own positive among the `b*n` passages."""
    b, n = batch["passage_key"].shape
    return jnp.arange(b) * n


def candidates(
    batch: Batch, margin: float | None = None, relative_margin: float = 0.0, known: bool = True
) -> Bool[Array, "b c"]:
    """False where a passage of the batch is known to answer the query: by its text, or by the teacher.

    Args:
      batch: with `passage_key` [b n]; `positive_keys` [b p] of all relevant texts, or the own positive's alone; and
        for a margin the `teacher_scores` [b n] of each query's own passages.
      margin: leaves an own negative out that the teacher scores above the positive's score less this.
      relative_margin: the same as a share of the positive's score, see `below_positive`.
      known: False lets every text but the own positive count, also copies of it.
    """
    keys = batch["passage_key"]
    if known:
        where = other_texts(batch.get("positive_keys", keys[:, :1]), keys.reshape(1, -1))
    else:
        where = jnp.arange(keys.size)[None] != positives(batch)[:, None]
    if margin is None:
        return where
    teacher, (b, n) = batch["teacher_scores"], keys.shape
    kept = below_positive(teacher, teacher[:, 0], margin, relative_margin)
    mine = jnp.eye(b, dtype=jnp.bool_)[:, :, None]
    return where & jnp.where(mine, kept[:, None, :], True).reshape(b, b * n)
