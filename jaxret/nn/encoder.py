"""The transformer, encoder or decoder: token ids in, one hidden state a token out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.nn.attention import Attention, plain_attention
from jaxret.nn.block import Block, Tables, norm
from jaxret.nn.config import EncoderConfig
from jaxret.nn.embedding import embedded
from jaxret.nn.layers import KEPT, Normalization, plain_normalization
from jaxret.nn.placement import TABLE, in_use
from jaxret.nn.positions import rotary_tables, segment_mask
from jaxret.ops.normalization import STATISTICS

LAYERS = "layers"


def unstacked(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with each layer of every encoder's stack on its own, for `Encoder` to run without a scan.

    A scan compiles one layer only, but copies each layer's parameters out of the stack. XLA for CPUs makes float32 of a
    bfloat16 stack to do so, in every call.
    """
    single: dict[str, Any] = {}
    for name, value in params.items():
        if name == LAYERS:
            single |= {f"{LAYERS}_{number}": layer for number, layer in enumerate(_split(value))}
        else:
            single[name] = unstacked(value) if isinstance(value, Mapping) else value
    return single


@jax.custom_vjp
def _split(stack: Any) -> list[Any]:
    """Each layer's parameters. Their gradients are put together once; else each would be added to the whole stack."""
    (count,) = {len(leaf) for leaf in jax.tree.leaves(stack)}
    return [jax.tree.map(itemgetter(number), stack) for number in range(count)]


_split.defvjp(lambda stack: (_split(stack), None), lambda _, layers: (jax.tree.map(lambda *x: jnp.stack(x), *layers),))


# What a layer keeps for the backward pass, which computes the rest again: "none" keeps all, "full" its input alone.
REMATS: dict[str, Callable | None] = {
    "none": None,
    "products": jax.checkpoint_policies.save_only_these_names(KEPT, STATISTICS),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Encoder(nn.Module):
    """Embeddings, layers, final norm; the layers are scanned unless their parameters are `unstacked`.

    Attributes:
      config: the sizes.
      attention: its implementation.
      remat: one of `REMATS`, for the scanned layers.
      normalization: its implementation.
      unrolled: the scan's layers are written out: what a layer keeps needs no place in a stack, for which a TPU copies
        it; each takes its time to compile.
    """

    config: EncoderConfig
    attention: Attention = plain_attention
    remat: str = "none"
    normalization: Normalization = plain_normalization
    unrolled: bool = False

    @nn.compact
    def __call__(
        self,
        token_ids: Int[Array, "b l"],
        mask: Bool[Array, "b l"],
        *,
        counted: Bool[Array, "b l"] | None = None,
        type_ids: Int[Array, "b l"] | None = None,
        embeddings: Float[Array, "b l d"] | None = None,
        segments: Int[Array, "b l"] | None = None,
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
          segments: numbers of the texts that stand one after another in a row, each for itself; needs an attention
            that takes `[b l l]`.
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
            segments=segments,
            deterministic=deterministic,
        )
        mask = mask if segments is None else segment_mask(mask, segments)  # rotary positions are relative anyway
        before, block = x[None], (config, self.attention, deterministic, all_states, self.normalization)
        x, after = self._layers(block, x, mask, self._tables(x.shape[1]))
        x = norm(config, "final_norm", self.normalization)(x) if config.final_norm else x
        return x, (None if after is None else jnp.concatenate([before, after]))

    def _layers(self, block: tuple, x, mask, tables):
        """The last states, and if all are wanted those after every layer."""
        layers = self.config.num_layers
        if self.has_variable("params", f"{LAYERS}_0"):
            return self._one_by_one(Block(*block, parent=None), x, mask, tables)
        policy = REMATS[self.remat]
        scanned = nn.scan(
            Block if policy is None else nn.remat(Block, prevent_cse=self.unrolled, policy=policy),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=layers,
            unroll=layers if self.unrolled else 1,
            metadata_params={nn.PARTITION_NAME: LAYERS},
        )
        return scanned(*block, name=LAYERS)(x, jnp.arange(layers), mask, tables)

    def _one_by_one(self, block: Block, x, mask, tables):
        """As the scan; the layers have one shape, so one of them is traced."""

        @jax.jit
        def applied(params, x, number, key):
            return block.apply({"params": params}, x, number, mask, tables, rngs={"dropout": key})

        keys = jax.random.split(
            jax.random.key(0) if block.deterministic else self.make_rng("dropout"), self.config.num_layers
        )
        after = []
        for number, key in enumerate(keys):
            x, states = applied(self.get_variable("params", f"{LAYERS}_{number}"), x, jnp.asarray(number), key)
            after.append(states)
        return x, (None if after[0] is None else jnp.stack(after))

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
        return in_use(nn.meta.unbox(self.get_variable("params", "token_embedding")), TABLE)
