"""A cross-encoder: query and passage in one row, one number out (monoBERT, Nogueira and Cho 2019, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxret.errors import InputError
from jaxret.nn.attention import Attention, plain_attention
from jaxret.nn.block import norm
from jaxret.nn.config import EncoderConfig
from jaxret.nn.dropout import Dropout
from jaxret.nn.encoder import Encoder
from jaxret.nn.layers import Dense, Normalization, plain_normalization
from jaxret.ops.activations import ACTIVATIONS
from jaxret.ops.vectors import POOLINGS

OUTPUTS = ("sigmoid", "identity")


@dataclass(frozen=True)
class ScoreHeadConfig:
    """What stands between the states and the score: pooling, a dense layer, an activation, perhaps a norm.

    Attributes:
      pooling: see `ops.vectors.POOLINGS`.
      bias: of the dense layer.
      activation: see `ops.activations`.
      norm: normalise after the activation, with the encoder's kind of norm (ModernBERT).
      dropout: before the last product.
    """

    pooling: str = "cls"
    bias: bool = True
    activation: str = "tanh"
    norm: bool = False
    dropout: float = 0.0

    def __post_init__(self):
        for name, known in (("pooling", POOLINGS), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in known:
                fix = f"Choose one of {', '.join(known)}."
                raise InputError(f"ScoreHeadConfig.{name}", f"unknown {getattr(self, name)!r}", fix)


@dataclass(frozen=True)
class CrossEncoderConfig:
    """An encoder and the head that scores a pair.

    Attributes:
      encoder: sizes of the body.
      head: of the scores.
      activation_fn: what users see of a score: "sigmoid", or "identity" for the number itself. Losses, rerankers and
        teachers take the number itself: the order is the same, and two good passages do not both become 1.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: ScoreHeadConfig = field(default_factory=ScoreHeadConfig)
    activation_fn: str = "sigmoid"

    def __post_init__(self):
        if self.activation_fn not in OUTPUTS:
            fix = f"Choose one of {', '.join(OUTPUTS)}."
            raise InputError("CrossEncoderConfig.activation_fn", f"unknown {self.activation_fn!r}", fix)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> CrossEncoderConfig:
        """The opposite of `dataclasses.asdict`, after JSON too."""
        parts = {"encoder": EncoderConfig.from_dict(record["encoder"]), "head": ScoreHeadConfig(**record["head"])}
        return cls(**{**record, **parts})


class CrossEncoder(nn.Module):
    """The body and the head."""

    config: CrossEncoderConfig
    attention: Attention = plain_attention
    remat: str = "none"
    normalization: Normalization = plain_normalization
    unrolled: bool = False

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "b l"], type_ids: Int[Array, "b l"] | None = None, *, deterministic: bool = True
    ) -> Float[Array, " b"]:
        """The scores, in float32, before `activation_fn`.

        Args:
          token_ids: rows of `data.pairs.pair_rows`; negative ids are padding.
          type_ids: token types, all 0 by default; an encoder with fewer than two of them takes none.
          deterministic: no dropout.
        """
        config, head = self.config.encoder, self.config.head
        mask = token_ids >= 0
        types = type_ids if config.num_types > 1 else None
        how = (self.attention, self.remat, self.normalization, self.unrolled)
        encoder = Encoder(config, *how, name="encoder")
        x, _ = encoder(token_ids, mask, type_ids=types, deterministic=deterministic)
        return ScoreHead(head, config, name="score")(POOLINGS[head.pooling](x, mask), deterministic=deterministic)


class ScoreHead(nn.Module):
    """One number a vector."""

    config: ScoreHeadConfig
    body: EncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, deterministic: bool = True) -> Float[Array, " b"]:
        """Transforms the vectors, and weighs their numbers in float32."""
        config = self.config
        x = Dense(x.shape[-1], ("width", None), config.bias, name="transform")(x[:, None])
        x = ACTIVATIONS[config.activation](x)
        x = norm(self.body, "norm")(x) if config.norm else x
        x = Dropout(config.dropout, deterministic)(x).astype(jnp.float32)
        return Dense(1, ("width", None), use_bias=True, name="classifier")(x)[:, 0, 0]
