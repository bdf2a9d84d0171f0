"""A text is rebuilt, or continued, by a frozen decoder from another model's states (LUSIFER, Man et al. 2025)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.errors import InputError
from jaxret.nn.connector import Connector
from jaxret.nn.encoder import Encoder
from jaxret.ops.masked_lm import masked_lm
from jaxret.runtime.attention import attention_named
from jaxret.runtime.model import Model
from jaxret.runtime.precision import cast, compute_dtype
from jaxret.train.objective import OWN, Objective
from jaxret.train.objectives import frozen
from jaxret.train.objectives.masked_lm import HEAD
from jaxret.train.objectives.predicted import in_pieces, mean_over, reader, states
from jaxret.train.objectives.represented import Batch

PLACE = "reconstructing"


def reconstructing(
    *,
    decoder: str,
    mask_probability: float = 0.5,
    causal: bool = False,
    hidden: int = 0,
    added: int = 0,
    mask_id: int | None = None,
) -> Objective:
    """Encoder and a connector learn to speak to a frozen decoder, which predicts the target's tokens.

    The batch has `source` [b s] in the model's ids and `target` [b t] in the decoder's: the same text to rebuild it, a
    text that follows to complete it; ids below 0 are padding. See `reconstruction` for the loss.

    Args:
      decoder: a checkpoint with a language model's head.
      mask_probability: of both masks of the target.
      causal: whether the decoder attends to earlier positions only, which LUSIFER's does not.
      hidden: width in the connector; 0 for the encoder's.
      added: trained vectors behind each source.
      mask_id: the decoder's id that takes the place of target ids; its tokeniser's [MASK] by default.

    Raises:
      InputError: no head, no [MASK], or nothing masked where the decoder sees all: a copy, which teaches nothing.
    """
    description = frozen.language_model(decoder, f"{PLACE}.decoder", causal=causal)
    speaker = description.model
    mask = speaker.tokenizer.mask_id if mask_id is None else mask_id
    _check_masks(mask_probability, causal, mask)
    rebuild = partial(reconstruction, speaker, mask_probability=mask_probability, mask_id=mask)

    def connector(model: Model) -> Connector:
        width = model.config.encoder.width
        return Connector(hidden or width, speaker.config.encoder.width, added)

    def init(model: Model, params: Any, key: jax.Array) -> tuple[Any, Any]:
        x, real = jnp.zeros((1, 1, model.config.encoder.width)), jnp.ones((1, 1), jnp.bool_)
        own = connector(model).init(key, x, real)["params"]
        return {"connector": own}, {"decoder": frozen.parameters(speaker)}

    def load(state: Any) -> Any:
        return state | {"decoder": frozen.loaded(description, state["decoder"])}

    def loss(model: Model, params: Any, state: Any, batch: Batch, rng: jax.Array) -> Any:
        for_encoder, for_masks = jax.random.split(rng)
        x = states(model, params, batch["source"], for_encoder)
        variables = {"params": cast(params[OWN]["connector"], compute_dtype(model.precision))}
        spoken: Any = connector(model).apply(variables, x, batch["source"] >= 0)
        inputs, kept = spoken
        losses = rebuild(frozen.still(state["decoder"]), inputs, kept, batch["target"], for_masks)
        return mean_over(losses, batch["target"] >= 0), (state, {})

    return Objective(loss, init, load)


def reconstruction(
    decoder: Model,
    params: Any,
    inputs: Float[Array, "b n k"],
    mask: Bool[Array, "b n"],
    target: Int[Array, "b t"],
    rng: jax.Array,
    *,
    mask_probability: float,
    mask_id: int | None,
) -> Float[Array, "b t"]:
    """`-log` of the share of each target token at the place before it; 0 at padding.

    The decoder reads what begins its texts, the inputs and the target's embeddings, without gaps between them. Each
    target token is hidden in two ways, each by chance: it is not attended to, and its embedding is that of `mask_id`.
    All of them are predicted.

    Args:
      decoder: a language model; see `frozen.language_model`.
      params: its parameters.
      inputs: embeddings in the place of tokens.
      mask: which of them count.
      target: ids; below 0 is padding.
      rng: of the two masks.
      mask_probability: of each of them.
      mask_id: may be None where nothing is masked.
    """
    config, real = decoder.config.encoder, target >= 0
    begin = jnp.asarray(decoder.tokenizer.begin, jnp.int32)
    unseen, replaced = (_drawn(key, real, mask_probability) for key in jax.random.split(rng))
    ids = target if mask_id is None else jnp.where(replaced, mask_id, target)
    params = cast(params, compute_dtype(decoder.precision))
    table = params["encoder"]["token_embedding"]
    first = jnp.broadcast_to(table[begin][None], (len(target), len(begin), config.width))
    x = jnp.concatenate([first, inputs.astype(table.dtype), table[jnp.maximum(ids, 0)]], axis=1)
    ones = jnp.ones(first.shape[:2], jnp.bool_)
    kept = jnp.concatenate([ones, mask, real], axis=1)
    attended = jnp.concatenate([ones, mask, real & ~unseen], axis=1)
    order = jnp.argsort(~kept, axis=1, stable=True)
    kept, attended = (jnp.take_along_axis(row, order, axis=1) for row in (kept, attended))
    # Plain attention: cuDNN's takes the attended positions for a prefix.
    encoder = Encoder(config, attention_named("plain"))
    x = jnp.take_along_axis(x, order[:, :, None], axis=1)
    places = jnp.zeros(kept.shape, jnp.int32)
    found: Any = encoder.apply({"params": params["encoder"]}, places, attended, counted=kept, embeddings=x)
    before = len(begin) + jnp.sum(mask, axis=1, keepdims=True) + jnp.arange(target.shape[1])[None, :] - 1
    predicting = jnp.take_along_axis(found[0], before[:, :, None], axis=1)
    read = reader(decoder, params, HEAD)
    losses: Array = in_pieces(lambda x, ids, kept: masked_lm(read(x), ids, where=kept), predicting, target, real)
    return losses


def _drawn(key: jax.Array, real: Bool[Array, "b t"], probability: float) -> Bool[Array, "b t"]:
    """True by chance at real positions, whatever the padding behind them."""
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(len(real)))
    return jax.vmap(lambda one: jax.random.bernoulli(one, probability, real.shape[1:]))(keys) & real


def _check_masks(probability: float, causal: bool, mask_id: int | None) -> None:
    if not 0 <= probability < 1:
        raise InputError(f"{PLACE}.mask_probability", f"{probability} is not in [0, 1)", "Give 0.5, for example.")
    if probability == 0 and not causal:
        problem = "0, and the decoder sees the very tokens that it predicts: it would copy them"
        raise InputError(f"{PLACE}.mask_probability", problem, "Give 0.5, or make the decoder causal.")
    if probability > 0 and mask_id is None:
        raise InputError(f"{PLACE}.mask_id", "the decoder's tokeniser has no [MASK]", "Give an id to mask with.")
