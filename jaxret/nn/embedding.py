"""What the first layer takes: token, type and position embeddings."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.nn.block import norm
from jaxret.nn.config import EncoderConfig
from jaxret.nn.dropout import Dropout
from jaxret.nn.layers import parameter
from jaxret.nn.placement import TABLE
from jaxret.nn.positions import position_rows


def embedded(
    module: nn.Module,
    config: EncoderConfig,
    token_ids: Int[Array, "b l"],
    counted: Bool[Array, "b l"],
    *,
    type_ids: Int[Array, "b l"] | None = None,
    embeddings: Float[Array, "b l d"] | None = None,
    segments: Int[Array, "b l"] | None = None,
    deterministic: bool = True,
) -> Float[Array, "b l d"]:
    """The embeddings, from parameters of `module` itself; the arguments are those of `Encoder`."""
    init = nn.initializers.normal(config.embedding_init)
    table = parameter(module, "token_embedding", init, TABLE, (config.vocab_size, config.width))
    x = jnp.take(table, jnp.maximum(token_ids, 0), axis=0) if embeddings is None else embeddings.astype(table.dtype)
    if config.num_types:
        types = parameter(module, "type_embedding", init, (None, "width"), (config.num_types, config.width))
        x = x + (types[:1][None] if type_ids is None else jnp.take(types, type_ids, axis=0))
    if config.positions == "learned":
        rows = position_rows(counted, config.position_offset, config.max_positions, segments)
        shape = (config.max_positions, config.width)
        x = x + jnp.take(parameter(module, "position_embedding", init, (None, "width"), shape), rows, axis=0)
    x = norm(config, "embedding_norm")(x) if config.embedding_norm else x
    return Dropout(config.dropout, deterministic)(x)


class Embedding(nn.Module):
    """The embeddings of an encoder alone: takes the parameters of an `Encoder`, and those of its layers stay idle."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self,
        token_ids: Int[Array, "b l"],
        mask: Bool[Array, "b l"],
        *,
        embeddings: Float[Array, "b l d"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "b l d"]:
        """As `embedded`; `mask` are the positions that count."""
        return embedded(self, self.config, token_ids, mask, embeddings=embeddings, deterministic=deterministic)
