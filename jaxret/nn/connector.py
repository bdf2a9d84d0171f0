"""From one model's states to another's input embeddings."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxret.nn.layers import Dense, parameter


class Connector(nn.Module):
    """Two linear maps with a ReLU between them, and trained vectors behind each text (LUSIFER, Man et al. 2025).

    Attributes:
      hidden: width between the two maps.
      features: width of the other model.
      added: number of trained vectors.
    """

    hidden: int
    features: int
    added: int = 0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]
    ) -> tuple[Float[Array, "b n k"], Bool[Array, "b n"]]:
        """`l + added` vectors a text, and which of them count."""
        inner = jax.nn.relu(Dense(self.hidden, ("width", "mlp"), True, name="up")(x))
        y = Dense(self.features, ("mlp", "width"), True, name="down")(inner)
        if not self.added:
            return y, mask
        normal = nn.initializers.normal(1.0)
        more = parameter(self, "added", normal, (None, "width"), (self.added, self.features)).astype(y.dtype)
        more = jnp.broadcast_to(more[None], (len(y), *more.shape))
        kept = jnp.ones((len(y), self.added), jnp.bool_)
        return jnp.concatenate([y, more], axis=1), jnp.concatenate([mask, kept], axis=1)
