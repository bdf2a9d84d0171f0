"""A training step of an encoder from scratch, for the benchmarks of its memory and its cost."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxret.data.text import TextConfig
from jaxret.nn.config import EncoderConfig
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import Model
from jaxret.train.objectives.contrastive import contrast
from jaxret.train.objectives.represented import objective_over
from jaxret.train.objectives.tiled import tiled_contrast
from jaxret.train.optimizers import adamw
from jaxret.train.program import global_batch, step_program
from jaxret.train.start import begun


class Pieces:
    """A tokeniser of 8,000 pieces, for batches that are ids already."""

    size, begin, end, special_ids, mask_id = 8000, (), (), (), None


def stepper(
    sizes: EncoderConfig, pairs: int, lengths: tuple[int, int], *, tiled: bool = False, **settings: Any
) -> Callable[[], float]:
    """A step of InfoNCE over mean-pooled vectors and AdamW, on one device; a call gives its loss.

    Args:
      sizes: the encoder's.
      pairs: of random ids.
      lengths: of queries and of passages.
      tiled: scores in tiles.
      **settings: of the model.
    """
    text = TextConfig(query_max_len=lengths[0], passage_max_len=lengths[1], query_expansion=False)
    pieces: Any = Pieces()
    model = Model(RetrieverConfig(sizes, heads=("dense",), pooling="mean"), text, pieces, **settings)
    compare = functools.partial(
        tiled_contrast if tiled else contrast, temperature={"dense": 0.05}, weight={"dense": 1.0}
    )
    objective, mesh, optimizer = objective_over([compare]), device_mesh((1, 1, 1)), adamw(10, learning_rate=1e-3)
    program, abstract = step_program(model, objective, optimizer, 0, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    state = jax.jit(lambda: begun(model, objective, optimizer, 0, model.init(0)), out_shardings=shardings)()
    arrays = global_batch(batch(pairs, lengths), mesh)

    def run() -> float:
        nonlocal state
        state, metrics = program(state, arrays)
        assert jnp.isfinite(metrics["loss"])
        return float(metrics["loss"])

    return run


def batch(pairs: int, lengths: tuple[int, int]) -> dict[str, np.ndarray]:
    """Rows of random ids, full."""
    random = np.random.default_rng(0)
    return {
        "query": random.integers(3, Pieces.size, (pairs, lengths[0]), np.int32),
        "passage": random.integers(3, Pieces.size, (pairs, 1, lengths[1]), np.int32),
        "passage_key": np.arange(pairs, dtype=np.int32)[:, None],
    }
