"""One encoder with its heads: a text in, up to three representations out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxret.errors import InputError
from jaxret.nn.attention import Attention, plain_attention
from jaxret.nn.config import EncoderConfig
from jaxret.nn.encoder import Encoder
from jaxret.nn.heads import DenseHead, LexicalHead, LMHead, LMHeadConfig, MultiVectorHead, Projection, projections
from jaxret.nn.layers import Normalization, plain_normalization
from jaxret.ops.lexical import SATURATIONS, vocabulary_logits, vocabulary_weights
from jaxret.ops.maxsim import RULES
from jaxret.ops.vectors import POOLINGS

Side = Literal["query", "passage"]
HEADS = ("dense", "lexical", "multi_vector")
if TYPE_CHECKING:
    Layers = tuple[Projection, ...]
else:
    Layers = tuple[int | Projection, ...]  # a number is made a Projection when it comes in
OnEither = Array | np.ndarray  # on devices or on the host


@dataclass(frozen=True)
class RetrieverConfig:
    """An encoder, its heads, and what the heads must know of the vocabulary.

    Attributes:
      encoder: sizes of the body.
      heads: which of "dense", "lexical", "multi_vector" it has.
      dense_layers, token_layers: projections behind the pooled and behind each token's state; a number stands for a
        layer of that width without bias.
      pooling: for the dense head, see `ops.vectors.POOLINGS`; of several, one vector behind the other.
      pool_prompt: whether it takes the prefix of a text, and all before it, too (INSTRUCTOR leaves them out).
      truncate: numbers kept of a dense vector; 0 for all (Matryoshka).
      normalize, normalize_tokens: dense vectors, token vectors of length one.
      similarity: of dense vectors that are not normalised, "dot" or "cosine".
      maxsim: the rule for scores of token vectors, see `ops.maxsim.RULES`.
      lm_head: the lexical head is SPLADE's (v2, Formal et al. 2021, eq. 1 and 6), behind this language model's head;
        None for one weight a token.
      splade_pooling, splade_saturation: "max" or "sum"; "log1p" or "log1p_twice".
      mask_id: [MASK], which expands queries and is attended if `attend_to_expansion`.
      special_ids: ids that carry no lexical weight.
      skip_ids: ids left out of a passage's token vectors (punctuation).
      skip_first: the first token has no token vector (BGE-M3).
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    heads: tuple[str, ...] = HEADS
    dense_layers: Layers = ()
    token_layers: Layers = ()
    pooling: str | tuple[str, ...] = "cls"
    pool_prompt: bool = True
    truncate: int = 0
    normalize: bool = True
    normalize_tokens: bool = True
    similarity: str = "dot"
    maxsim: str = "exact"
    lm_head: LMHeadConfig | None = None
    splade_pooling: str = "max"
    splade_saturation: str = "log1p"
    mask_id: int = 4
    attend_to_expansion: bool = True
    special_ids: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    skip_ids: tuple[int, ...] = ()
    skip_first: bool = False

    def __post_init__(self):
        for name in ("dense_layers", "token_layers"):
            object.__setattr__(self, name, projections(getattr(self, name)))
        choices = {
            "heads": HEADS,
            "pooling": tuple(POOLINGS),
            "similarity": ("dot", "cosine"),
            "maxsim": tuple(RULES),
            "splade_pooling": ("max", "sum"),
            "splade_saturation": tuple(SATURATIONS),
        }
        for name, allowed in choices.items():
            found = getattr(self, name)
            wrong = [value for value in ((found,) if isinstance(found, str) else found) if value not in allowed]
            if wrong or not found:
                raise InputError(
                    f"RetrieverConfig.{name}", f"{found!r} is unknown or empty", f"Choose from {', '.join(allowed)}."
                )

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> RetrieverConfig:
        """The opposite of `dataclasses.asdict`, after JSON too."""
        fields: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in record.items()}
        fields["encoder"] = EncoderConfig.from_dict(record["encoder"])
        for name in ("dense_layers", "token_layers"):
            fields[name] = tuple(Projection(**layer) for layer in record[name])
        fields["lm_head"] = None if record["lm_head"] is None else LMHeadConfig(**record["lm_head"])
        return cls(**fields)

    @property
    def poolings(self) -> tuple[str, ...]:
        """The names in `pooling`."""
        return (self.pooling,) if isinstance(self.pooling, str) else self.pooling

    @property
    def pooled_width(self) -> int:
        """Numbers that the first dense layer takes."""
        return self.encoder.width * len(self.poolings)

    @property
    def dense_width(self) -> int:
        """Numbers in a dense vector."""
        return self.truncate or (self.dense_layers[-1].features if self.dense_layers else self.pooled_width)

    @property
    def token_width(self) -> int:
        """Numbers in a token vector."""
        return self.token_layers[-1].features if self.token_layers else self.encoder.width


@flax.struct.dataclass
class Terms:
    """Lexical weights of `b` texts, non-negative.

    Attributes:
      weights: `[b m]`.
      ids: `[b m]`, the vocabulary entry of each weight (an entry may repeat: its largest counts; ids of weight 0 mean
        nothing); None where weight `i` is entry `i`'s, for all of them.
      vocab_size: entries of the vocabulary.
    """

    weights: Float[OnEither, "b m"]
    ids: Int[OnEither, "b m"] | None
    vocab_size: int = flax.struct.field(pytree_node=False)

    def spread(self) -> Float[Array, "b v"]:
        """One weight for each vocabulary entry."""
        weights = jnp.asarray(self.weights)
        return weights if self.ids is None else vocabulary_weights(weights, jnp.asarray(self.ids), self.vocab_size)


@flax.struct.dataclass
class Embeddings:
    """The representations of `b` texts; None where the model lacks the head.

    Attributes:
      dense: `[b e]`, unit vectors if the model normalises.
      lexical: the terms of each text and their weights.
      tokens: `[b l k]`, unit vectors if the model normalises.
      mask: which token vectors take part in MaxSim, `[b l]`.
    """

    dense: Float[OnEither, "b e"] | None
    lexical: Terms | None
    tokens: Float[OnEither, "b l k"] | None
    mask: Bool[OnEither, "b l"] | None


class Retriever(nn.Module):
    """The body and the heads that `config` names.

    Attributes:
      config: sizes and heads.
      attention: the implementation.
      unpooled: ids at the beginning of a query and of a passage that the dense head leaves out.
      remat, normalization, unrolled: see `Encoder`.
    """

    config: RetrieverConfig
    attention: Attention = plain_attention
    unpooled: tuple[int, int] = (0, 0)
    remat: str = "none"
    normalization: Normalization = plain_normalization
    unrolled: bool = False

    @nn.compact
    def __call__(self, token_ids: Int[Array, "b l"], side: Side, *, deterministic: bool = True) -> Embeddings:
        """Embeds padded token ids of one side, "query" or "passage"; negative ids are padding."""
        config = self.config
        real = token_ids >= 0
        attended = real if config.attend_to_expansion else real & (token_ids != config.mask_id)
        how = (self.attention, self.remat, self.normalization, self.unrolled)
        encoder = Encoder(config.encoder, *how, name="encoder")
        x, _ = encoder(token_ids, attended, counted=real, deterministic=deterministic)
        dense = lexical = tokens = mask = None
        if "dense" in config.heads:
            layers, first = projections(config.dense_layers), self.unpooled[side == "passage"]
            head = DenseHead(config.poolings, layers, config.truncate, config.normalize, name="dense")
            dense = head(x, attended & (jnp.cumsum(real, axis=1) > first) if first else attended)
        if "lexical" in config.heads:
            lexical = self._lexical(encoder, x, token_ids, attended)
        if "multi_vector" in config.heads:
            tokens = MultiVectorHead(config.token_layers, config.normalize_tokens, name="multi_vector")(x)
            mask = token_mask(config, token_ids, side)
        return Embeddings(dense, lexical, tokens, mask)

    def _lexical(self, encoder: Encoder, x, token_ids, attended) -> Terms:
        config, body = self.config, self.config.encoder
        if config.lm_head is None:
            carries = attended & ~_member(token_ids, config.special_ids, config)
            return Terms(LexicalHead(name="lexical")(x, carries), token_ids, body.vocab_size)
        head = LMHead(config.lm_head, body, name="lm_head")
        states, table, bias = head(x, encoder.token_table())
        saturation = SATURATIONS[config.splade_saturation]
        weights = vocabulary_logits(states, table, bias, attended, saturation, config.splade_pooling)
        return Terms(weights, None, body.vocab_size)


def token_mask(config: RetrieverConfig, token_ids: Int[Array, "b l"], side: Side) -> Bool[Array, "b l"]:
    """Which tokens of one side, "query" or "passage", take part in MaxSim."""
    mask = token_ids >= 0
    if config.skip_first:
        mask = mask & (jnp.cumsum(mask, axis=1) > 1)
    return mask & ~_member(token_ids, config.skip_ids, config) if side == "passage" else mask


def _member(token_ids: Int[Array, "b l"], ids: tuple[int, ...], config: RetrieverConfig) -> Bool[Array, "b l"]:
    table = jnp.zeros(config.encoder.vocab_size, jnp.bool_)
    table = table.at[jnp.asarray(ids, jnp.int32)].set(True) if ids else table
    return jnp.take(table, jnp.maximum(token_ids, 0), axis=0)
