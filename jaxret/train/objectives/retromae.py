"""RetroMAE: a masked text's vector must let a weak decoder rebuild the text (Xiao et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxret.nn.enhanced_decoder import EnhancedDecoder, visible_sets
from jaxret.nn.heads import LMHeadConfig
from jaxret.ops.masked_lm import masked_lm_distillation
from jaxret.ops.vectors import POOLINGS
from jaxret.runtime.attention import attention_named
from jaxret.runtime.model import Model
from jaxret.runtime.precision import cast, compute_dtype
from jaxret.train.objective import OWN, Objective
from jaxret.train.objectives import frozen
from jaxret.train.objectives.masked_lm import HEAD
from jaxret.train.objectives.predicted import (
    chosen,
    embedding,
    fresh_head,
    in_pieces,
    mean_over,
    predicted,
    reader,
    states,
)
from jaxret.train.objectives.represented import Batch, Metrics

Halves = Callable[..., tuple[Float[Array, ""], Metrics]]


def retromae(
    *, decoder_rate: float = 0.5, head: LMHeadConfig = HEAD, pooling: str = "cls", most: int | None = None
) -> Objective:
    """The encoder's masked language modelling, plus the decoder's over all tokens but the first and the last.

    The batch has `tokens` [b l] as they were, `encoder_ids` [b l] as the encoder sees them, `encoder_where` [b l], not
    0 where it predicts, and `decoder_seed` [b], which the decoder's masks are drawn from; ids below 0 are padding. One
    head reads both.

    Args:
      decoder_rate: share of the tokens that are hidden from each of the decoder's positions.
      head: the objective's own, for a model without SPLADE's.
      pooling: what the text's vector is, see `ops.vectors.POOLINGS`.
      most: the encoder predicts no more than the first so many of each text's masked tokens.
    """

    def init(model: Model, params: Any, key: jax.Array) -> tuple[Any, Any]:
        return _added(model, head, key), {}

    def loss(model: Model, params: Any, state: Any, batch: Batch, rng: jax.Array) -> Any:
        rngs = jax.random.split(rng)
        x = states(model, params, batch["encoder_ids"], rngs[0])
        read = reader(model, params, head)
        where, (kept, tokens) = chosen(_masked(batch), most, x, batch["tokens"])
        value, accuracy = predicted(read, kept, tokens, where)
        metrics = {"loss_encoder": value, "accuracy_encoder": accuracy}
        rebuilt, found = _rebuilt(model, params, x, batch, rngs[1], decoder_rate, pooling, read)
        return value + rebuilt, (state, metrics | found)

    return Objective(loss, init)


def retromae_distillation(
    *,
    teacher: str,
    temperature: float = 1.0,
    decoder_rate: float = 0.5,
    head: LMHeadConfig = HEAD,
    pooling: str = "cls",
    most: int | None = None,
) -> Objective:
    """RetroMAE whose encoder learns a teacher's shares at the masked tokens, not the tokens (Granite, Awasthy et al.
    2025, section 4.2).

    Args:
      teacher: a checkpoint with a language model's head and the model's vocabulary; it reads the masked text too.
      temperature: divides the logits of both.
      decoder_rate, head, pooling, most: see `retromae`, as the batch.

    Raises:
      InputError: the teacher has no such head; when training starts, another vocabulary.
    """
    description = frozen.language_model(teacher, "retromae_distillation.teacher")

    def init(model: Model, params: Any, key: jax.Array) -> tuple[Any, Any]:
        frozen.check_same_vocabulary("retromae_distillation.teacher", description.model, model)
        return _added(model, head, key), {"teacher": frozen.parameters(description.model)}

    def load(state: Any) -> Any:
        return state | {"teacher": frozen.loaded(description, state["teacher"])}

    def loss(model: Model, params: Any, state: Any, batch: Batch, rng: jax.Array) -> Any:
        rngs = jax.random.split(rng)
        x, read = states(model, params, batch["encoder_ids"], rngs[0]), reader(model, params, head)
        taught = frozen.still(state["teacher"])
        theirs = states(frozen.in_chunks_of(model, description.model), taught, batch["encoder_ids"], None)
        teach = reader(description.model, taught, head)

        def piece(x: Array, theirs: Array, where: Array) -> Array:
            return masked_lm_distillation(read(x), teach(theirs), temperature, where=where)

        where, (kept, known) = chosen(_masked(batch), most, x, theirs)
        value = mean_over(in_pieces(piece, kept, known, where), where)
        rebuilt, found = _rebuilt(model, params, x, batch, rngs[1], decoder_rate, pooling, read)
        return value + rebuilt, (state, {"distillation_encoder": value} | found)

    return Objective(loss, init, load)


def _added(model: Model, head: LMHeadConfig, key: jax.Array) -> Any:
    keys = jax.random.split(key)
    x, visible = jnp.zeros((1, 2, model.config.encoder.width)), jnp.ones((1, 2, 2), jnp.bool_)
    decoder = EnhancedDecoder(model.config.encoder).init(keys[0], x, x, visible)["params"]
    return {"decoder": decoder} | fresh_head(model, head, keys[1])


def _masked(batch: Batch) -> Bool[Array, "b l"]:
    return (batch["encoder_where"] != 0) & (batch["tokens"] >= 0)


def _rebuilt(
    model: Model, params: Any, x: Array, batch: Batch, rng: Any, rate: float, pooling: str, read: Any
) -> tuple[Float[Array, ""], Metrics]:
    """The decoder's loss (Xiao et al. 2022, eq. 8)."""
    tokens = batch["tokens"]
    real = tokens >= 0
    rngs = jax.random.split(rng, 3)
    vector = POOLINGS[pooling](x, batch["encoder_ids"] >= 0)[:, None]
    query = embedding(model, params, rngs[0])(tokens, real, embeddings=jnp.broadcast_to(vector, x.shape))
    seen = jnp.concatenate([vector, embedding(model, params, rngs[1])(tokens, real)[:, 1:]], axis=1)
    visible = visible_sets(batch["decoder_seed"], real, rate)
    decoder = EnhancedDecoder(model.config.encoder, attention_named("plain"))
    variables = {"params": cast(params[OWN]["decoder"], compute_dtype(model.precision))}
    settings: Any = {"deterministic": False, "rngs": {"dropout": rngs[2]}}
    states: Any = decoder.apply(variables, query, seen, visible, **settings)
    place = jnp.cumsum(real, axis=1)
    inside = real & (place > 1) & (place < jnp.sum(real, axis=1, keepdims=True))
    value, accuracy = predicted(read, states, tokens, inside)
    return value, {"loss_decoder": value, "accuracy_decoder": accuracy}
