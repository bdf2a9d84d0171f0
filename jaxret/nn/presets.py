"""Published encoders by name: one row of sizes each, in the words of the family's `config.json`.

A name is that of the published repository, in lower case and without its owner. A preset is a body of that shape to
start from without the checkpoint's files, and what a checkpoint's own `config.json` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from jaxret.errors import InputError
from jaxret.nn.config import EncoderConfig
from jaxret.nn.convert.configs import encoder_config

Preset = tuple[str, Mapping[str, Any]]


def _row(family: str, vocab: int, width: int, layers: int, heads: int, mlp: int, **rest: Any) -> Preset:
    sizes = {"vocab_size": vocab, "hidden_size": width, "num_hidden_layers": layers}
    return family, sizes | {"num_attention_heads": heads, "intermediate_size": mlp} | rest


_ROBERTA: dict[str, Any] = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_GRANITE_30M = _row("roberta", 50265, 384, 6, 12, 1536, max_position_embeddings=514)
_MISTRAL: dict[str, Any] = {"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "max_position_embeddings": 32768}
_MISTRAL_1 = _row("mistral", 32000, 4096, 32, 32, 14336, **_MISTRAL, rope_theta=1e4, sliding_window=4096)
_LLAMA_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_LLAMA: dict[str, Any] = {"rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "rope_scaling": _LLAMA_ROPE}
_QWEN: dict[str, Any] = {"rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "max_position_embeddings": 32768}
_QWEN_3 = _QWEN | {"num_key_value_heads": 8, "head_dim": 128}
_LONGER = {"max_position_embeddings": 40960}

PRESETS: dict[str, Preset] = {
    "bert-base-uncased": _row("bert", 30522, 768, 12, 12, 3072),
    "bert-large-uncased": _row("bert", 30522, 1024, 24, 16, 4096),
    "bert-base-japanese-v3": _row("bert", 32768, 768, 12, 12, 3072),
    "all-minilm-l6-v2": _row("bert", 30522, 384, 6, 12, 1536),
    "roberta-base": _row("roberta", 50265, 768, 12, 12, 3072, **_ROBERTA),
    "xlm-roberta-base": _row("xlm-roberta", 250002, 768, 12, 12, 3072, **_ROBERTA),
    "xlm-roberta-large": _row("xlm-roberta", 250002, 1024, 24, 16, 4096, **_ROBERTA),
    "xlm-roberta-xl": _row("xlm-roberta-xl", 250880, 2560, 36, 32, 10240),
    "bge-m3": _row("xlm-roberta", 250002, 1024, 24, 16, 4096, **_ROBERTA | {"max_position_embeddings": 8194}),
    "granite-embedding-30m-english": _GRANITE_30M,
    "granite-embedding-30m-sparse": _GRANITE_30M,
    "granite-embedding-125m-english": _row("roberta", 50265, 768, 12, 12, 3072, **_ROBERTA),
    "granite-embedding-278m-multilingual": _row("xlm-roberta", 250002, 768, 12, 12, 3072, **_ROBERTA),
    "granite-embedding-english-r2": _row("modernbert", 50368, 768, 22, 12, 1152, global_rope_theta=80_000.0),
    "granite-embedding-small-english-r2": _row("modernbert", 50368, 384, 12, 12, 1536, global_rope_theta=80_000.0),
    "modernbert-base": _row("modernbert", 50368, 768, 22, 12, 1152),
    "modernbert-large": _row("modernbert", 50368, 1024, 28, 16, 2624),
    "mistral-7b-v0.1": _MISTRAL_1,
    "mistral-7b-v0.3": _row("mistral", 32768, 4096, 32, 32, 14336, **_MISTRAL, rope_theta=1e6, sliding_window=None),
    "e5-mistral-7b-instruct": _MISTRAL_1,
    "llama-3.1-8b": _row(
        "llama", 128256, 4096, 32, 32, 14336, **_LLAMA, num_key_value_heads=8, max_position_embeddings=131072
    ),
    "qwen2.5-3b": _row("qwen2", 151936, 2048, 36, 16, 11008, **_QWEN, num_key_value_heads=2),
    "qwen3-embedding-0.6b": _row("qwen3", 151669, 1024, 28, 16, 3072, **_QWEN_3),
    "qwen3-embedding-4b": _row("qwen3", 151665, 2560, 36, 32, 9728, **_QWEN_3 | _LONGER),
    "qwen3-embedding-8b": _row("qwen3", 151665, 4096, 36, 32, 12288, **_QWEN_3 | _LONGER),
}


def preset(name: str, **changes: Any) -> EncoderConfig:
    """The encoder of that name, with some fields of `EncoderConfig` changed.

    Raises:
      InputError: no such preset or field; it lists those known.
    """
    if name not in PRESETS:
        raise InputError("preset", f"unknown {name!r}", f"Choose one of {', '.join(PRESETS)}.")
    known = [field.name for field in fields(EncoderConfig)]
    unknown = [change for change in changes if change not in known]
    if unknown:
        raise InputError(f"preset {name}", f"unknown {', '.join(unknown)}", f"Known are {', '.join(known)}.")
    family, record = PRESETS[name]
    return replace(encoder_config({**record, "model_type": family}, f"preset {name}"), **changes)
