"""RetroMAE's decoder: one layer that rebuilds a text from one vector and, for each token, some of the others."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.nn.attention import Attention, plain_attention
from jaxret.nn.block import Block, norm
from jaxret.nn.config import EncoderConfig
from jaxret.nn.positions import rotary_tables


class EnhancedDecoder(nn.Module):
    """One transformer layer of the encoder's kind, attending everywhere that it may (Xiao et al. 2022, eqs. 5 to 7).

    Attributes:
      config: the encoder's.
      attention: an implementation that takes masks `[b l l]`.
    """

    config: EncoderConfig
    attention: Attention = plain_attention

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b l d"],
        seen: Float[Array, "b l d"],
        visible: Bool[Array, "b l l"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "b l d"]:
        """States to predict each token from.

        Args:
          query: the text's vector with each position's embedding.
          seen: the text's vector in the first place, then the tokens' embeddings.
          visible: what each position may attend to, at least one place.
          deterministic: no dropout.
        """
        config = dataclasses.replace(self.config, causal=False, window=0, global_every=0, first_norm=True)
        rotary = config.positions == "rotary"
        widths = (config.heads_width, config.rope_base, config.rope_scaling)
        tables = (rotary_tables(query.shape[1], *widths),) if rotary else ()
        block = Block(config, self.attention, deterministic, False, name="block")
        x, _ = block(query, jnp.zeros((), jnp.int32), visible, tables, seen)
        return norm(config, "final_norm")(x) if config.final_norm else x


def visible_sets(seed: Int[Array, " b"], real: Bool[Array, "b l"], rate: float) -> Bool[Array, "b l l"]:
    """For each position the places that it may see, drawn from the text's seed (Xiao et al. 2022, eq. 6).

    The first place, the text's vector, is always seen, a position's own never, each other one with probability
    `1 - rate`. What a place gets does not depend on the padding behind it.
    """
    length = real.shape[1]

    def row(seed: Array, number: Array) -> Bool[Array, " l"]:
        key = jax.random.fold_in(jax.random.key(seed), number)
        return jax.random.bernoulli(key, 1 - rate, (length,))

    places = jnp.arange(length)
    drawn = jax.vmap(lambda one: jax.vmap(lambda number: row(one, number))(places))(seed)
    others = drawn & (places[:, None] != places[None, :])[None] & real[:, None, :]
    return others | (places == 0)[None, None]
