"""Contrastive context prediction: a sentence finds its neighbour among sentences of its language (Wu et al. 2022)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxret.errors import InputError
from jaxret.nn.context_head import ContextHead, HeadStatistics, standard_statistics
from jaxret.ops.contrastive import context_prediction
from jaxret.ops.false_negatives import other_texts
from jaxret.ops.memory_bank import bank_scores, remembered
from jaxret.ops.vectors import POOLINGS
from jaxret.runtime.mesh import all_pairs
from jaxret.runtime.model import Model
from jaxret.runtime.precision import cast, compute_dtype
from jaxret.train.objective import OWN, Objective, copied, languages_below
from jaxret.train.objectives.memory import boxed_bank, moved
from jaxret.train.objectives.predicted import states
from jaxret.train.objectives.represented import Batch, Metrics, effective_negatives

NORMS = ("asymmetric", "symmetric", "none")


def predicting_context(
    *,
    temperature: float,
    languages: int = 1,
    size: int = 0,
    shared_bank: bool = False,
    shared_batch: bool = False,
    norm: str = "asymmetric",
    norm_momentum: float = 0.9,
    hidden: int = 0,
    features: int = 0,
    pooling: str = "cls",
    momentum: float | None = None,
) -> Objective:
    """Each centre finds its context, and each context its centre, among the batch and remembered contexts.

    The batch has `center` [b s], `context` [b s], `language` [b] and `document` [b]; sentences of one document are
    never each other's negatives. The head is thrown away after training.

    With "asymmetric" batch normalisation one side is normalised by the batch's statistics, which alone move the running
    ones, and the other side by the running ones; the sides take turns with the steps (centres first). Statistics are
    of the global batch: with "symmetric" ones each side has its own, and a batch's common shift can tell who belongs
    to it.

    Args:
      temperature: divides the scores.
      languages: how many there are.
      size: memories of each ring, a multiple of the number of devices that a batch is split over; 0 for none.
      shared_bank: one ring for all languages, each other's memories among the negatives. By default each has its own.
      shared_batch: sentences of other languages in the batch are negatives, which by default they are not.
      norm: "asymmetric", "symmetric" or "none", in the head.
      norm_momentum: share of the running statistics that a step keeps.
      hidden, features: widths in the head; 0 for the encoder's.
      pooling: what a sentence's vector is, see `ops.vectors.POOLINGS`.
      momentum: contexts go through this moving average of model and head, and no gradient does (0.999 in MoCo, He et
        al. 2020); None for the model itself.

    Raises:
      InputError: no such normalisation.
    """
    if norm not in NORMS:
        raise InputError("predicting_context.norm", f"unknown {norm!r}", f"Choose one of {', '.join(NORMS)}.")
    rings = 1 if shared_bank else languages

    def head_of(model: Model) -> ContextHead:
        width = model.config.encoder.width
        return ContextHead(hidden or width, features or width, normalize=norm != "none")

    def init(model: Model, params: Any, key: jax.Array) -> tuple[Any, Any]:
        head = head_of(model)
        running = standard_statistics(head.hidden, head.features)
        x = jnp.zeros((1, model.config.encoder.width))
        added = {"head": head.init(key, x, running, jnp.array(True))["params"]}
        state = {"running": running, "step": jnp.zeros((), jnp.int32)}
        state |= {"bank": boxed_bank(rings, size, head.features)} if size else {}
        return added, state if momentum is None else state | {"average": copied({**params, OWN: added})}

    def loss(model: Model, params: Any, state: Any, batch: Batch, rng: jax.Array) -> Any:
        represent = partial(_vectors, model, head_of(model), pooling, state["running"])
        centers_turn, rngs = state["step"] % 2 == 0, jax.random.split(rng)
        turns = (centers_turn, ~centers_turn) if norm == "asymmetric" else (jnp.array(True),) * 2
        center, of_center = represent(params, batch["center"], rngs[0], turns[0])
        if momentum is None:
            context, of_context = represent(params, batch["context"], rngs[1], turns[1])
        else:
            state = state | {"average": moved(state["average"], params, momentum)}
            context, of_context = represent(state["average"], batch["context"], None, turns[1])
        used = jax.tree.map(lambda x, y: jnp.where(centers_turn, x, y), of_center, of_context)
        running = moved(state["running"], used, norm_momentum)
        language = jnp.zeros_like(batch["language"]) if rings == 1 else batch["language"]
        bank = state.get("bank")
        losses, metrics = _compared(center, context, batch, bank, language, temperature, shared_batch)
        state = state | {"running": running, "step": state["step"] + 1}
        state |= {"bank": remembered(bank, context, language, batch["document"])} if size else {}
        return jnp.mean(losses), (state, metrics)

    return Objective(loss, init, check=languages_below(languages, "predicting_context.languages"))


def _vectors(
    model: Model,
    head: ContextHead,
    pooling: str,
    running: HeadStatistics,
    params: Any,
    token_ids: Array,
    rng: Any,
    by_batch: Array,
) -> tuple[Float[Array, "b k"], HeadStatistics]:
    """The head's vectors of some sentences, and their statistics."""
    pooled = POOLINGS[pooling](states(model, params, token_ids, rng), token_ids >= 0)
    variables = {"params": cast(params[OWN]["head"], compute_dtype(model.precision))}
    found: Any = head.apply(variables, pooled, running, by_batch)
    return found


def _compared(
    center: Array, context: Array, batch: Batch, bank: Any, language: Array, temperature: float, shared_batch: bool
) -> tuple[Float[Array, " b"], Metrics]:
    """The losses; `language` is the ring of each sentence."""
    scores = all_pairs(lambda q, d: jnp.einsum("bk,ck->bc", q, d), center, context)
    where = _may_meet(batch, languages=not shared_batch)
    both, known = _remembered_scores(center, context, bank, language, batch["document"])
    losses = context_prediction(scores, *both, temperature, where=where, bank_where=known)
    best, own = jnp.argmax(jnp.where(where, scores, -jnp.inf), axis=1), jnp.arange(len(center))
    memories = jnp.mean(jnp.sum(known, axis=1, dtype=jnp.float32))
    metrics = {"accuracy": jnp.mean(best == own), "memories": memories}
    return losses, metrics | effective_negatives(jnp.concatenate([where, known], axis=1), own)


def _may_meet(batch: Batch, *, languages: bool) -> Bool[Array, "b b"]:
    """True on the diagonal and for pairs of different documents, of one language if `languages` count."""
    language, document = batch["language"], batch["document"]
    apart = other_texts(document[:, None], document[None, :])
    apart = apart & (language[:, None] == language[None, :]) if languages else apart
    return apart | jnp.eye(len(document), dtype=jnp.bool_)


def _remembered_scores(
    center: Array, context: Array, bank: Any, language: Array, document: Array
) -> tuple[tuple[Float[Array, "b m"], Float[Array, "b m"]], Bool[Array, "b m"]]:
    """Scores of both sides with the memories, and which of them may count."""
    if bank is None:
        none = jnp.zeros((len(center), 0), jnp.float32)
        return (none, none), none.astype(jnp.bool_)
    (from_center, keys, written), (from_context, _, _) = (bank_scores(x, bank, language) for x in (center, context))
    return (from_center, from_context), written & other_texts(document[:, None], keys)
