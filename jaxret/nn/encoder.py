"""The transformer, encoder or decoder: token ids in, one hidden state a token out."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.nn.attention import Attention, plain_attention
from jaxret.nn.block import Block, Tables, norm
from jaxret.nn.config import EncoderConfig
from jaxret.nn.embedding import embedded
from jaxret.nn.positions import rotary_tables


class Encoder(nn.Module):
    """Embeddings, scanned layers, final norm."""

    config: EncoderConfig
    attention: Attention = plain_attention

    @nn.compact
    def __call__(
        self,
        token_ids: Int[Array, "b l"],
        mask: Bool[Array, "b l"],
        *,
        counted: Bool[Array, "b l"] | None = None,
        type_ids: Int[Array, "b l"] | None = None,
        embeddings: Float[Array, "b l d"] | None = None,
        deterministic: bool = True,
        all_states: bool = False,
    ) -> tuple[Float[Array, "b l d"], Float[Array, "n b l d"] | None]:
        """Hidden states, and with `all_states` those before each layer and after the last as well (n = layers + 1).

        Args:
          token_ids: negative ids are padding.
          mask: positions that may be attended.
          counted: positions that RoBERTa's positions count; `mask` by default.
          type_ids: token types; 0 by default.
          embeddings: in place of the tokens' own, for a decoder behind a connector.
          deterministic: no dropout.
          all_states: see above.
        """
        config = self.config
        x = embedded(
            self,
            config,
            token_ids,
            mask if counted is None else counted,
            type_ids=type_ids,
            embeddings=embeddings,
            deterministic=deterministic,
        )
        layers = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=config.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(config, self.attention, deterministic, all_states, name="layers")
        before = x[None]
        x, after = layers(x, jnp.arange(config.num_layers), mask, self._tables(x.shape[1]))
        x = norm(config, "final_norm")(x) if config.final_norm else x
        return x, (None if after is None else jnp.concatenate([before, after]))

    def _tables(self, length: int) -> Tables:
        config = self.config
        if config.positions != "rotary":
            return ()
        local = config.local_rope_base or config.rope_base
        bases = [config.rope_base, local] if config.global_every or not config.window else [local]
        width, scaling = config.heads_width, config.rope_scaling
        return tuple(rotary_tables(length, width, base, scaling) for base in dict.fromkeys(bases))

    def token_table(self) -> Float[Array, "v d"]:
        """The token embeddings, after a call, for a head that is tied to them."""
        return nn.meta.unbox(self.get_variable("params", "token_embedding"))
