"""One encoder with its heads: a text in, up to three representations out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxret.errors import InputError
from jaxret.nn.encoder import Encoder, EncoderConfig
from jaxret.nn.heads import DenseHead, LexicalHead, MultiVectorHead
from jaxret.ops.vectors import POOLINGS

Side = Literal["query", "passage"]
HEADS = ("dense", "lexical", "multi_vector")
OnEither = Array | np.ndarray  # on devices or on the host


@dataclass(frozen=True)
class RetrieverConfig:
    """An encoder, its heads, and what the heads must know of the vocabulary.

    Attributes:
      encoder: sizes of the body.
      heads: which of "dense", "lexical", "multi_vector" it has.
      dense_width, token_width: widths of the dense vector and of a token vector.
      pooling: "cls" or "mean", for the dense head.
      pad_id, mask_id: padding is never attended; [MASK] expands queries and is attended if `attend_to_expansion`.
      special_ids: ids that carry no lexical weight.
      skip_ids: ids left out of a passage's token vectors (punctuation).
    """

    encoder: EncoderConfig
    heads: tuple[str, ...] = HEADS
    dense_width: int = 128
    token_width: int = 64
    pooling: str = "cls"
    pad_id: int = 0
    mask_id: int = 4
    attend_to_expansion: bool = True
    special_ids: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    skip_ids: tuple[int, ...] = ()

    def __post_init__(self):
        choices = {"heads": HEADS, "pooling": tuple(POOLINGS)}
        for name, found in (("heads", self.heads), ("pooling", (self.pooling,))):
            wrong = [value for value in found if value not in choices[name]]
            if wrong or not found:
                fix = f"Choose from {', '.join(choices[name])}."
                raise InputError(f"RetrieverConfig.{name}", f"{found!r} is unknown or empty", fix)


@flax.struct.dataclass
class Embeddings:
    """The representations of `b` texts; None where the model lacks the head.

    Attributes:
      token_ids: the input, `[b l]`.
      mask: which token vectors take part in MaxSim, `[b l]`.
      dense: unit vectors, `[b e]`.
      lexical: token weights, `[b l]`, non-negative, 0 on special tokens.
      tokens: unit vectors, `[b l k]`.
      vocab_size: the length of a lexical vector.
    """

    token_ids: Int[OnEither, "b l"]
    mask: Bool[OnEither, "b l"]
    dense: Float[OnEither, "b e"] | None
    lexical: Float[OnEither, "b l"] | None
    tokens: Float[OnEither, "b l k"] | None
    vocab_size: int = flax.struct.field(pytree_node=False)


class Retriever(nn.Module):
    """The body and the heads that `config` names."""

    config: RetrieverConfig

    @nn.compact
    def __call__(self, token_ids: Int[Array, "b l"], side: Side, *, deterministic: bool = True) -> Embeddings:
        """Embeds padded token ids of one side, "query" or "passage"."""
        config = self.config
        real = token_ids != config.pad_id
        attended = real if config.attend_to_expansion else real & (token_ids != config.mask_id)
        x = Encoder(config.encoder, name="encoder")(token_ids, attended, deterministic=deterministic)
        dense = lexical = tokens = None
        if "dense" in config.heads:
            dense = DenseHead(config.dense_width, config.pooling, name="dense")(x, attended)
        if "lexical" in config.heads:
            lexical = LexicalHead(name="lexical")(x, ~_member(token_ids, config.special_ids, config))
        if "multi_vector" in config.heads:
            tokens = MultiVectorHead(config.token_width, name="multi_vector")(x)
        mask = real & ~_member(token_ids, config.skip_ids, config) if side == "passage" else real
        return Embeddings(token_ids, mask, dense, lexical, tokens, config.encoder.vocab_size)


def _member(token_ids: Int[Array, "b l"], ids: tuple[int, ...], config: RetrieverConfig) -> Bool[Array, "b l"]:
    table = jnp.zeros(config.encoder.vocab_size, jnp.bool_)
    table = table.at[jnp.asarray(ids, jnp.int32)].set(True) if ids else table
    return jnp.take(table, token_ids, axis=0)
