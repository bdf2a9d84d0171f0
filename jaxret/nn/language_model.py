"""A language model: the encoder and the head that a SPLADE retriever has too, under the same names."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.nn.attention import Attention, plain_attention
from jaxret.nn.config import EncoderConfig
from jaxret.nn.encoder import Encoder
from jaxret.nn.heads import LMHead, LMHeadConfig


class LanguageModel(nn.Module):
    """Logits over the vocabulary at each position, masked or causal as the encoder is."""

    encoder: EncoderConfig
    head: LMHeadConfig
    attention: Attention = plain_attention

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "b l"], mask: Bool[Array, "b l"], *, deterministic: bool = True
    ) -> Float[Array, "b l v"]:
        """Logits, in float32."""
        body = Encoder(self.encoder, self.attention, name="encoder")
        x, _ = body(token_ids, mask, deterministic=deterministic)
        states, table, bias = LMHead(self.head, self.encoder, name="lm_head")(x, body.token_table())
        logits = jnp.einsum("bld,vd->blv", states, table, preferred_element_type=jnp.float32)
        return logits + bias[None, None].astype(jnp.float32)
