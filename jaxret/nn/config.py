"""Sizes and choices of a transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxret.errors import InputError
from jaxret.ops.activations import ACTIVATIONS

_CHOICES = {"norm": ("rms", "layer"), "norm_order": ("pre", "post"), "positions": ("rotary", "learned")}


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and choices of a transformer; every published family is one row of them (`nn/presets.py`).

    Attributes:
      vocab_size, width, num_layers, num_heads, mlp_width: sizes; in training the vocabulary says the first.
      num_kv_heads: heads of keys and values; 0 for as many as queries have.
      head_width: width of a head; 0 for `width / num_heads`.
      activation, gated: of the MLP, see `layers.MLP`.
      qkv_bias, output_bias, mlp_bias: which products have a bias.
      head_norm: normalise each head's queries and keys (Qwen3).
      norm, norm_bias, norm_epsilon: "rms" or "layer".
      norm_order: "pre" normalises each block's input, "post" its sum with the residual.
      embedding_norm, first_norm, final_norm: normalise embeddings; the first layer's attention input; the last states.
      positions: "rotary" or "learned".
      max_positions: rows of the learned table; for rotary positions the longest text the model was made for, or 0.
      position_offset: row of the first real token; see `positions.position_rows`.
      num_types: rows of the table of token types, of which 0 is the default; 0 for none.
      causal: attend to earlier positions only.
      window, global_every: attend within this distance, but everywhere in every n-th layer from the first on.
        0 and 0: everywhere.
      rope_base, local_rope_base: of the rotary positions, the second in layers with a window (0: the same).
      rope_scaling: factor, low and high frequency factor, original length, as Llama 3.1 stretches slow rotations.
      dropout: on embeddings and on the output of each block.
      embedding_init: standard deviation of fresh embeddings.
    """

    vocab_size: int = 0
    width: int = 128
    num_layers: int = 2
    num_heads: int = 4
    mlp_width: int = 256
    num_kv_heads: int = 0
    head_width: int = 0
    activation: str = "gelu_tanh"
    gated: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_norm: bool = False
    norm: str = "rms"
    norm_bias: bool = False
    norm_epsilon: float = 1e-6
    norm_order: str = "pre"
    embedding_norm: bool = False
    first_norm: bool = True
    final_norm: bool = True
    positions: str = "rotary"
    max_positions: int = 0
    position_offset: int = 0
    num_types: int = 0
    causal: bool = False
    window: int = 0
    global_every: int = 0
    rope_base: float = 10_000.0
    local_rope_base: float = 0.0
    rope_scaling: tuple[float, ...] = ()
    dropout: float = 0.0
    embedding_init: float = 1.0

    def __post_init__(self):
        for name, choices in (_CHOICES | {"activation": tuple(ACTIVATIONS)}).items():
            if getattr(self, name) not in choices:
                fix = f"Choose one of {', '.join(choices)}."
                raise InputError(f"EncoderConfig.{name}", f"unknown {getattr(self, name)!r}", fix)
        even = 2 if self.positions == "rotary" else 1
        if self.num_heads < 1 or (not self.head_width and self.width % (even * self.num_heads)):
            problem = f"{self.num_heads} heads do not divide a width of {self.width} into even parts"
            raise InputError("EncoderConfig.num_heads", problem, "Make width a multiple of 2 x num_heads.")
        if self.num_heads % self.kv_heads:
            problem = f"{self.kv_heads} do not divide {self.num_heads} heads"
            raise InputError("EncoderConfig.num_kv_heads", problem, "Choose a divisor of num_heads.")
        if self.positions == "learned" and self.max_positions <= self.position_offset:
            problem = f"{self.max_positions} rows leave no position"
            raise InputError("EncoderConfig.max_positions", problem, "Give the rows of the position table.")

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> EncoderConfig:
        """The opposite of `dataclasses.asdict`, after JSON too."""
        fields: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in record.items()}
        return cls(**fields)

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def heads_width(self) -> int:
        """Width of one head."""
        return self.head_width or self.width // self.num_heads

    @property
    def usable_positions(self) -> int:
        """The longest text the positions allow, or 0 for no limit."""
        return max(0, self.max_positions - self.position_offset)
