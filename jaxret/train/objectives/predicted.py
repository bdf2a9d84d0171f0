"""Tokens predicted from states: the encoder, the head, and losses over a vocabulary, some positions at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxret.nn.embedding import Embedding
from jaxret.nn.encoder import Encoder
from jaxret.nn.heads import LMHead, LMHeadConfig
from jaxret.nn.placement import TABLE, in_use
from jaxret.ops.masked_lm import masked_lm
from jaxret.runtime.attention import attention_named
from jaxret.runtime.chunks import in_chunks
from jaxret.runtime.model import Model
from jaxret.runtime.precision import cast, compute_dtype
from jaxret.train.objective import OWN

AT_ONCE = 32  # positions of each text whose logits are in memory
Read = Callable[[Array], Array]  # states [b n d] to logits [b n v], in float32


def states(
    model: Model,
    params: Any,
    token_ids: Int[Array, "b l"],
    rng: jax.Array | None,
    segments: Int[Array, "b l"] | None = None,
) -> Float[Array, "b l d"]:
    """The encoder's last states; each real token, [MASK] too, is attended. Without `rng` there is no dropout.

    In chunks, if the model has a number of rows for them. `segments` are the numbers of the texts in each row; plain
    attention keeps them apart.
    """
    attention = model.module.attention if segments is None else attention_named("plain")
    encoder = Encoder(model.config.encoder, attention, model.remat, model.module.normalization, model.unrolled)

    def apply(params: Any, texts: tuple[Array, Array | None]) -> Array:
        (token_ids, segments), variables = texts, {"params": _computed(model, params)}
        found: Any = encoder.apply(variables, token_ids, token_ids >= 0, segments=segments, **_dropout(rng))
        return found[0]

    if not model.chunk_rows:
        return apply(params["encoder"], (token_ids, segments))
    return in_chunks(apply, params["encoder"], (token_ids, segments), model.chunk_rows, model.kept_rows)


def embedding(model: Model, params: Any, rng: jax.Array | None) -> Callable[..., Float[Array, "b l d"]]:
    """The encoder's embeddings as a function of token ids, mask and perhaps `embeddings`."""
    variables = {"params": _computed(model, params["encoder"])}

    def embed(token_ids: Array, mask: Array, **given: Any) -> Any:
        return Embedding(model.config.encoder).apply(variables, token_ids, mask, **given, **_dropout(rng))

    return embed


def _dropout(rng: jax.Array | None) -> dict[str, Any]:
    return {"deterministic": rng is None, "rngs": None if rng is None else {"dropout": rng}}


def _computed(model: Model, params: Any) -> Any:
    return cast(params, compute_dtype(model.precision))


def has_head(model: Model) -> bool:
    """Whether the model itself has a language model's head, SPLADE's."""
    return "lexical" in model.config.heads and model.config.lm_head is not None


def fresh_head(model: Model, head: LMHeadConfig, key: jax.Array) -> dict[str, Any]:
    """{"lm_head": its parameters, with logical axes}, or {} where the model has a head or where that has none."""
    if has_head(model):
        return {}
    body = model.config.encoder
    x, table = jnp.zeros((1, 1, body.width)), jnp.zeros((body.vocab_size, body.width))
    params = LMHead(head, body).init(key, x, table).get("params", {})
    return {"lm_head": params} if params else {}


def reader(model: Model, params: Any, head: LMHeadConfig) -> Read:
    """States to logits through the model's head, or else through the objective's own, of the kind `head`."""
    if has_head(model):
        assert model.config.lm_head is not None
        head, own = model.config.lm_head, params.get("lm_head", {})
    else:
        own = params.get(OWN, {}).get("lm_head", {})
    variables = {"params": _computed(model, own)}
    table = in_use(_computed(model, params["encoder"]["token_embedding"]), TABLE)

    def read(x: Array) -> Array:
        found: Any = LMHead(head, model.config.encoder).apply(variables, x, table)
        transformed, rows, bias = found
        logits = jnp.einsum("bnd,vd->bnv", transformed, rows, preferred_element_type=jnp.float32)
        return logits + bias[None, None].astype(jnp.float32)

    return read


def predicted(
    read: Read, x: Float[Array, "b n d"], token_ids: Int[Array, "b n"], where: Bool[Array, "b n"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean of `masked_lm` over kept positions of all texts, and the share that are predicted right."""

    def piece(x: Array, token_ids: Array, where: Array) -> tuple[Array, Array]:
        logits = read(x)
        right = (jnp.argmax(logits, axis=-1) == token_ids) & where
        return masked_lm(logits, token_ids, where=where), right.astype(jnp.float32)

    losses, right = in_pieces(piece, x, token_ids, where)
    return mean_over(losses, where), mean_over(right, where)


def mean_over(x: Float[Array, "b n"], where: Bool[Array, "b n"]) -> Float[Array, ""]:
    """The mean over kept positions of the global batch; 0 where none is kept."""
    return jnp.sum(jnp.where(where, x, 0.0)) / jnp.maximum(jnp.sum(where, dtype=jnp.float32), 1)


def in_pieces(function: Callable[..., Any], *arrays: Array, size: int = AT_ONCE) -> Any:
    """`function(*arrays)` on so many positions of each text at a time; the backward pass works each piece out again.

    Args:
      function: arrays `[b m ...]` to arrays `[b m ...]`, each position for itself.
      arrays: `[b n ...]`.
      size: positions in a piece.
    """
    b, length = arrays[0].shape[:2]
    steps = -(-length // size)
    if steps == 1:
        return function(*arrays)

    def split(x: Array) -> Array:
        padding = [(0, 0), (0, steps * size - length)] + [(0, 0)] * (x.ndim - 2)
        return jnp.moveaxis(jnp.pad(x, padding).reshape(b, steps, size, *x.shape[2:]), 1, 0)

    def joined(x: Array) -> Array:
        return jnp.moveaxis(x, 0, 1).reshape(b, steps * size, *x.shape[3:])[:, :length]

    piece = jax.checkpoint(lambda pieces: function(*pieces), prevent_cse=False)
    return jax.tree.map(joined, lax.map(piece, tuple(map(split, arrays))))


def chosen(where: Bool[Array, "b l"], most: int | None, *arrays: Array) -> tuple[Bool[Array, "b n"], tuple[Array, ...]]:
    """The first `most` kept positions of each text, of the mask and of arrays `[b l ...]`; all of them for None.

    BERT's `max_predictions_per_seq`: a head over a large vocabulary costs more than the encoder, and most positions of
    a masked text are not predicted.
    """
    if most is None or most >= where.shape[1]:
        return where, arrays
    places = jnp.argsort(~where, axis=1, stable=True)[:, :most]

    def taken(x: Array) -> Array:
        return jnp.take_along_axis(x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), axis=1)

    return taken(where), tuple(map(taken, arrays))
