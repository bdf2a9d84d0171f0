"""How fast a run trains: tokens, padding, and the share of the machine's arithmetic that the model uses.

Only what the model's encoder reads counts, of a batch on the host: the rows of one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxret.data.text import NO_TOKEN
from jaxret.nn.config import EncoderConfig

# The arrays of ids that an encoder reads, of all kinds of batches.
READ = ("query", "passage", "pair", "center", "context", "source", "masked", "encoder_ids")
# Dense bfloat16 operations a second of one device, as its maker says, by how JAX's name for its kind begins.
PEAKS = {
    "TPU v4 lite": 138e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100": 312e12,
}


def tokens(batch: Mapping[str, Any]) -> int:
    """Real tokens of a batch."""
    return int(sum(lengths.sum() for lengths, _ in _texts(batch)))


def padding_share(batch: Mapping[str, Any]) -> float:
    """Share of a batch's ids that only fill rows up; 0 for a batch without ids."""
    places = sum(rows * width for _, (rows, width) in _texts(batch))
    return 1 - tokens(batch) / places if places else 0.0


def training_flops(config: EncoderConfig, batch: Mapping[str, Any], *, padded: bool = False) -> float:
    """Floating-point operations of a step that trains the whole encoder, a product and a sum as two.

    For `P` weights of all kernels, `n` layers, `h` heads of width `w`: `6 P` a token for the kernels, and for the two
    products of attention `12 n h w` for each pair of a token and one that it may attend to (PaLM, Chowdhery et al.
    2022, appendix B). The backward pass counts as two forward passes; what rematerialisation and gradient caching
    compute again does not count, nor do heads, losses and the optimiser. As there, causal attention counts as full.

    Args:
      config: the encoder's sizes.
      batch: whose real tokens count.
      padded: count the tokens that fill rows up, as real ones.
    """
    total = 0.0
    for lengths, (rows, width) in _texts(batch):
        seen = (np.full(rows, width) if padded else lengths).astype(np.float64)
        total += 6 * kernel_weights(config) * seen.sum()
        for window in windows(config):
            total += 12 * config.num_heads * config.heads_width * pairs(seen, window).sum()
    return float(total)


def kernel_weights(config: EncoderConfig) -> int:
    """Weights of all kernels of an encoder's layers, `P` of `training_flops`."""
    queries, keys = config.num_heads * config.heads_width, config.kv_heads * config.heads_width
    attention = config.width * (2 * queries + 2 * keys)
    return config.num_layers * (attention + (3 if config.gated else 2) * config.width * config.mlp_width)


def windows(config: EncoderConfig) -> list[int]:
    """How far each layer attends to both sides; 0 for everywhere."""
    everywhere = [bool(config.global_every) and layer % config.global_every == 0 for layer in range(config.num_layers)]
    return [0 if free else config.window for free in everywhere]


def pairs(lengths: np.ndarray, window: int) -> np.ndarray:
    """How many pairs of tokens attend to each other in texts of these lengths."""
    if not window:
        return lengths**2
    reach = np.minimum(window, np.maximum(lengths - 1, 0))
    return lengths + 2 * reach * lengths - reach * (reach + 1)


def peak_flops(device_kind: str) -> float | None:
    """Dense bfloat16 operations a second of one device; None for a kind that has no known peak, such as a CPU.

    Args:
      device_kind: `jax.devices()[0].device_kind`.
    """
    return next((peak for kind, peak in PEAKS.items() if device_kind.startswith(kind)), None)


def _texts(batch: Mapping[str, Any]) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Real tokens of each text, and the shape `[rows width]`, of every array that an encoder reads.

    `segments` [b l] numbers the texts within a row that holds several, which do not attend to each other.
    """
    for name in READ:
        if name in batch:
            ids = np.asarray(batch[name])
            ids = ids.reshape(-1, ids.shape[-1])
            rows, _ = np.nonzero(ids != NO_TOKEN)
            if "segments" in batch:
                rows = rows * ids.shape[-1] + np.asarray(batch["segments"])[ids != NO_TOKEN]
            yield np.bincount(rows), ids.shape
