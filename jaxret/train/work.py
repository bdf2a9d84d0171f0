"""What the batches of a run ask of its machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxret.nn.config import EncoderConfig
from jaxret.train.throughput import padding_share, peak_flops, tokens, training_flops


@dataclass(frozen=True)
class Work:
    """Some batches' work, over all processes, as if each had as much as this one.

    Attributes:
      examples: rows.
      tokens: real ones.
      places: those of real tokens and of padding.
      flops: floating-point operations of the encoder's training on the real tokens.
    """

    examples: float = 0.0
    tokens: float = 0.0
    places: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.examples + other.examples,
            self.tokens + other.tokens,
            self.places + other.places,
            self.flops + other.flops,
        )

    def shares(self) -> dict[str, float]:
        """The share of padding, where there are tokens."""
        return {"padding_share": 1 - self.tokens / self.places} if self.places else {}

    def rates(self, devices: np.ndarray) -> dict[str, float]:
        """By the name of a rate, what divided by seconds is that rate; the MFU where the devices' peak is known."""
        peak = peak_flops(devices.flat[0].device_kind)
        found = {"examples_per_second": self.examples}
        if self.tokens:
            found["tokens_per_second"] = self.tokens
        if peak and self.flops:
            found["mfu"] = self.flops / (peak * devices.size)
        return found


def work_of(batch: Mapping[str, np.ndarray], config: Any) -> Work:
    """The work of this process's rows of a batch, times the processes.

    Args:
      batch: on the host.
      config: of the model; its `encoder` is counted, if it has one.
    """
    processes, real = float(jax.process_count()), tokens(batch)
    encoder = getattr(config, "encoder", None)
    return Work(
        examples=processes * len(next(iter(batch.values()))),
        tokens=processes * real,
        places=processes * real / (1 - padding_share(batch)) if real else 0.0,
        flops=processes * training_flops(encoder, batch) if isinstance(encoder, EncoderConfig) else 0.0,
    )
