"""Optimisers, as functions of the number of steps."""

from __future__ import annotations

from typing import Any

import jax
import optax


def adamw(
    steps: int,
    *,
    learning_rate: float,
    warmup: float = 0.1,
    final: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
    clip: float = 1.0,
) -> optax.GradientTransformation:
    """AdamW with linear warm-up, cosine decay and clipping by the global norm.

    Args:
      steps: length of the run.
      learning_rate: at the peak.
      warmup: share of the steps that warm up.
      final: last learning rate as a share of the peak.
      b1, b2, epsilon: of Adam.
      weight_decay: of parameters with two or more axes; scales and biases have none.
      clip: largest global norm of the gradient.
    """
    warmup_steps = max(1, round(warmup * steps))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup_steps, max(steps, warmup_steps + 1), final * learning_rate
    )
    decayed = optax.adamw(schedule, b1=b1, b2=b2, eps=epsilon, weight_decay=weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(clip), decayed)


def matrices(params: Any) -> Any:
    """True for kernels and embeddings, False for scales and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, x: path[-1].key not in ("scale", "bias"), params)
