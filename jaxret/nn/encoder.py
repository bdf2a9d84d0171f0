"""The transformer encoder: token ids in, one hidden state a token out."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.errors import InputError
from jaxret.nn.attention import SelfAttention
from jaxret.nn.layers import GatedMLP, RMSNorm, parameter


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an encoder. `width` must be a multiple of twice `num_heads` (rotary halves)."""

    vocab_size: int
    width: int = 128
    num_layers: int = 2
    num_heads: int = 4
    mlp_width: int = 256
    rope_base: float = 10_000.0
    dropout: float = 0.0

    def __post_init__(self):
        if self.num_heads < 1 or self.width % (2 * self.num_heads):
            problem = f"{self.num_heads} heads do not divide a width of {self.width} into even parts"
            raise InputError("EncoderConfig.num_heads", problem, "Make width a multiple of 2 x num_heads.")


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    config: EncoderConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> tuple[Float[Array, "b l d"], None]:
        """Attends and transforms; returns `(states, None)` as a scan wants."""
        drop = nn.Dropout(self.config.dropout, deterministic=self.deterministic)
        attention = SelfAttention(self.config.num_heads, self.config.rope_base, name="attention")
        x = x + drop(attention(RMSNorm(name="attention_norm")(x), mask))
        x = x + drop(GatedMLP(self.config.mlp_width, name="mlp")(RMSNorm(name="mlp_norm")(x)))
        return x, None


class Encoder(nn.Module):
    """Embedding, scanned layers, final norm."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "b l"], mask: Bool[Array, "b l"], *, deterministic: bool = True
    ) -> Float[Array, "b l d"]:
        """Hidden states; positions where `mask` is False are attended by none."""
        config = self.config
        shape = (config.vocab_size, config.width)
        table = parameter(self, "embedding", nn.initializers.normal(1.0), ("vocab", "width"), shape)
        x = jnp.take(table, token_ids, axis=0)
        layers = nn.scan(
            Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=config.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = layers(config, deterministic, name="layers")(x, mask)
        return RMSNorm(name="final_norm")(x)
