"""One transformer layer."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.nn.attention import Attention
from jaxret.nn.config import EncoderConfig
from jaxret.nn.dropout import Dropout
from jaxret.nn.layers import MLP, RESIDUAL_INIT, Dense, Norm, Normalization, kept, plain_normalization
from jaxret.nn.positions import rotated

Tables = tuple[tuple[Float[Array, "l w"], Float[Array, "l w"]], ...]
Mask = Bool[Array, "b l"] | Bool[Array, "b l l"]


def norm(config: EncoderConfig, name: str, normalization: Normalization = plain_normalization) -> Norm:
    """The kind of normalisation that the configuration asks for."""
    return Norm(config.norm, config.norm_epsilon, config.norm_bias, normalization, name=name)


class SelfAttention(nn.Module):
    """Projections, rotary positions, attention, projection."""

    config: EncoderConfig
    attention: Attention

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        mask: Mask,
        tables: Tables,
        everywhere: Bool[Array, ""],
        seen: Float[Array, "b l d"] | None = None,
    ) -> Float[Array, "b l d"]:
        """Attends; `everywhere` is False in a layer with a window, whose rotary tables are the last of `tables`.

        `seen` has the states that are attended to where they are not `x` itself.
        """
        config = self.config
        w, sizes = config.heads_width, {"query": config.num_heads, "key": config.kv_heads, "value": config.kv_heads}
        heads = []
        for name, count in sizes.items():
            source = x if seen is None or name == "query" else seen
            y = kept(Dense(count * w, ("width", "heads"), config.qkv_bias, name=name)(source))
            heads.append(jnp.moveaxis(y.reshape(*x.shape[:2], count, w), 1, 2))
        q, k, v = heads
        if config.head_norm:
            q = Norm("rms", config.norm_epsilon, name="query_norm")(q)
            k = Norm("rms", config.norm_epsilon, name="key_norm")(k)
        if tables:
            cosines, sines = (jnp.where(everywhere, *pair) for pair in zip(tables[0], tables[-1], strict=True))
            q, k = rotated(q, cosines, sines), rotated(k, cosines, sines)
        mixed = self._attended(q, k, v, mask, everywhere)
        mixed = jnp.moveaxis(mixed, 1, 2).reshape(*x.shape[:2], config.num_heads * w)
        return Dense(x.shape[-1], ("heads", "width"), config.output_bias, RESIDUAL_INIT, name="output")(mixed)

    def _attended(self, q, k, v, mask, everywhere):
        config = self.config

        def attended(window: int):
            return lambda: self.attention(q, k, v, mask, causal=config.causal, window=window)

        if config.window and config.global_every:
            return jax.lax.cond(everywhere, attended(0), attended(config.window))
        return attended(config.window)()


class Block(nn.Module):
    """One transformer layer, as a scan wants it."""

    config: EncoderConfig
    attention: Attention
    deterministic: bool
    all_states: bool
    normalization: Normalization = plain_normalization

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        number: Int[Array, ""],
        mask: Mask,
        tables: Tables,
        seen: Float[Array, "b l d"] | None = None,
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b l d"] | None]:
        """Attends, to itself or to `seen`, and transforms; the states are carry and, if all are wanted, output."""
        config = self.config
        drop = Dropout(config.dropout, self.deterministic)
        attention_norm, mlp_norm = (norm(config, name, self.normalization) for name in ("attention_norm", "mlp_norm"))
        attention = SelfAttention(config, self.attention, name="attention")
        mlp = MLP(config.mlp_width, config.activation, config.gated, config.mlp_bias, name="mlp")
        everywhere = number % max(1, config.global_every) == 0
        if config.norm_order == "post":
            x = attention_norm(kept(x + drop(attention(x, mask, tables, everywhere, seen))))
            x = mlp_norm(kept(x + drop(mlp(x))))
        else:
            inner = attention_norm(x)
            inner = inner if config.first_norm else jnp.where(number == 0, x, inner)
            seen = None if seen is None else attention_norm(seen)
            x = kept(x + drop(attention(inner, mask, tables, everywhere, seen)))
            x = x + drop(mlp(mlp_norm(x)))
        return x, (x if self.all_states else None)
