"""Published `config.json` records as encoder configurations, and back: one row a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from jaxret.errors import InputError
from jaxret.nn.config import EncoderConfig
from jaxret.nn.convert.rotary import rotary_fields, rotary_record
from jaxret.nn.heads import LMHeadConfig

Record = Mapping[str, Any]

ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "mlp_width",
    "max_position_embeddings": "max_positions",
}


@dataclass(frozen=True)
class ConfigRow:
    """How one family writes its configuration.

    Attributes:
      fixed: the encoder fields that make the family.
      renamed: their names of fields that are written as they are, besides the sizes.
      defaults: what their fields are where a record leaves them out.
      activation: their name of the activation's field.
      read: the fields that need thought, from their record (defaults filled in) to ours.
      written: the opposite.
      architectures: names of their classes: the bare model, and the one with a language model's head.
      lm_head: the language model's head, from their record.
    """

    fixed: dict[str, Any]
    renamed: Mapping[str, str]
    defaults: Record
    activation: str
    read: Callable[[Record], dict[str, Any]]
    written: Callable[[EncoderConfig], dict[str, Any]]
    architectures: tuple[str, str]
    lm_head: Callable[[Record], LMHeadConfig]


def _bert_read(record: Record) -> dict[str, Any]:
    if record.get("position_embedding_type", "absolute") != "absolute":
        problem = f"position_embedding_type is {record['position_embedding_type']!r}"
        raise InputError("config.json", problem, "Only absolute positions are known.")
    return {}


def _roberta_read(record: Record) -> dict[str, Any]:
    return _bert_read(record) | {"position_offset": record["pad_token_id"] + 1}


def _modernbert_read(record: Record) -> dict[str, Any]:
    every = record.get("global_attn_every_n_layers", 3)
    kinds = record.get("layer_types")
    if kinds:
        every = next((n for n in range(1, len(kinds)) if kinds[n] == "full_attention"), len(kinds))
        wanted = ["sliding_attention" if n % every else "full_attention" for n in range(len(kinds))]
        if kinds != wanted:
            raise InputError(
                "config.json", "layer_types are not 'every n-th layer is global'", "Only that pattern is known."
            )
    bias = record["attention_bias"]
    return {
        "window": record["local_attention"] // 2,
        "global_every": every,
        "qkv_bias": bias,
        "output_bias": bias,
        **rotary_fields(record, mixed=True),
    }


def _modernbert_written(config: EncoderConfig) -> dict[str, Any]:
    kinds = ["sliding_attention" if n % config.global_every else "full_attention" for n in range(config.num_layers)]
    return {
        "local_attention": 2 * config.window,
        "layer_types": kinds,
        "global_attn_every_n_layers": config.global_every,
        "attention_bias": config.qkv_bias,
        **rotary_record(config, mixed=True),
    }


def _decoder_read(record: Record) -> dict[str, Any]:
    window = record.get("sliding_window") if record.get("use_sliding_window", True) else None
    if window and record.get("max_window_layers", 0) >= record["num_hidden_layers"]:
        window = None
    if window and record.get("max_window_layers", 0):
        raise InputError("config.json", "some layers have a window, others none", "That mixture is not known.")
    bias = record.get("attention_bias", False)
    return {
        "window": window - 1 if window else 0,
        "head_width": record.get("head_dim") or 0,
        "num_kv_heads": record.get("num_key_value_heads") or 0,
        "causal": record.get("is_causal", True),
        "qkv_bias": bias,
        "output_bias": bias,
        **rotary_fields(record, mixed=False),
    }


def _decoder_written(config: EncoderConfig) -> dict[str, Any]:
    record = {
        "sliding_window": config.window + 1 if config.window else None,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.heads_width,
        **rotary_record(config, mixed=False),
    }
    record |= {} if config.causal else {"is_causal": False}
    return record | ({"attention_bias": True} if config.output_bias else {})


_POST_NORM = {
    "activation": "gelu",
    "gated": False,
    "qkv_bias": True,
    "output_bias": True,
    "mlp_bias": True,
    "norm": "layer",
    "norm_bias": True,
    "norm_order": "post",
    "embedding_norm": True,
    "final_norm": False,
    "positions": "learned",
    "embedding_init": 0.02,
}
_BERT_NAMES = {"hidden_dropout_prob": "dropout", "type_vocab_size": "num_types", "layer_norm_eps": "norm_epsilon"}
_BERT_DEFAULTS = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
_DECODER_NAMES = {"rms_norm_eps": "norm_epsilon"}
_DECODER_DEFAULTS = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False}


def _bert_row(
    read: Callable, written: Callable, classes: tuple[str, str], fixed: dict[str, Any], defaults: dict[str, Any]
) -> ConfigRow:
    def head(record: Record) -> LMHeadConfig:
        return LMHeadConfig(tied=record.get("tie_word_embeddings", True))

    own, known = _POST_NORM | fixed, _BERT_DEFAULTS | defaults
    return ConfigRow(own, _BERT_NAMES, known, "hidden_act", read, written, classes, head)


def _decoder_row(name: str, fixed: dict[str, Any] | None = None, defaults: dict[str, Any] | None = None) -> ConfigRow:
    def head(record: Record) -> LMHeadConfig:
        return LMHeadConfig(transform=False, bias=False, tied=record["tie_word_embeddings"])

    own: dict[str, Any] = {"norm": "rms", "embedding_init": 0.02} | (fixed or {})
    classes = (f"{name}Model", f"{name}ForCausalLM")
    known = _DECODER_DEFAULTS | (defaults or {})
    return ConfigRow(own, _DECODER_NAMES, known, "hidden_act", _decoder_read, _decoder_written, classes, head)


def _offset(config: EncoderConfig) -> dict[str, Any]:
    return {"pad_token_id": config.position_offset - 1}


_ROBERTA_DEFAULTS = {"pad_token_id": 1}
_XL = {"norm_order": "pre", "embedding_norm": False, "final_norm": True}
ROWS = {
    "bert": _bert_row(_bert_read, lambda config: {}, ("BertModel", "BertForMaskedLM"), {}, {}),
    "roberta": _bert_row(_roberta_read, _offset, ("RobertaModel", "RobertaForMaskedLM"), {}, _ROBERTA_DEFAULTS),
    "camembert": _bert_row(_roberta_read, _offset, ("CamembertModel", "CamembertForMaskedLM"), {}, _ROBERTA_DEFAULTS),
    "xlm-roberta": _bert_row(
        _roberta_read, _offset, ("XLMRobertaModel", "XLMRobertaForMaskedLM"), {}, _ROBERTA_DEFAULTS
    ),
    "xlm-roberta-xl": _bert_row(
        _roberta_read,
        _offset,
        ("XLMRobertaXLModel", "XLMRobertaXLForMaskedLM"),
        _XL,
        _ROBERTA_DEFAULTS | {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "max_position_embeddings": 514},
    ),
    "modernbert": ConfigRow(
        {"norm": "layer", "embedding_norm": True, "first_norm": False, "embedding_init": 0.02},
        {"norm_eps": "norm_epsilon", "norm_bias": "norm_bias", "mlp_bias": "mlp_bias", "mlp_dropout": "dropout"},
        {
            "hidden_activation": "gelu",
            "norm_eps": 1e-5,
            "norm_bias": False,
            "mlp_bias": False,
            "mlp_dropout": 0.0,
            "attention_bias": False,
            "local_attention": 128,
            "max_position_embeddings": 8192,
        },
        "hidden_activation",
        _modernbert_read,
        _modernbert_written,
        ("ModernBertModel", "ModernBertForMaskedLM"),
        lambda record: LMHeadConfig(
            transform_bias=record.get("classifier_bias", False),
            activation=ACTIVATION_NAMES[record.get("classifier_activation", "gelu")],
            bias=record.get("decoder_bias", True),
            tied=record.get("tie_word_embeddings", True),
        ),
    ),
    "mistral": _decoder_row("Mistral", defaults={"num_key_value_heads": 8, "sliding_window": 4096}),
    "llama": _decoder_row("Llama", defaults={"max_position_embeddings": 2048}),
    "qwen2": _decoder_row("Qwen2", {"qkv_bias": True}, {"num_key_value_heads": 32, "use_sliding_window": False}),
    "qwen3": _decoder_row(
        "Qwen3", {"head_norm": True}, {"num_key_value_heads": 32, "head_dim": 128, "use_sliding_window": False}
    ),
}


def row(record: Record, place: Any = "config.json") -> ConfigRow:
    """The row of a record's `model_type`; InputError lists those known."""
    name = record.get("model_type")
    if name not in ROWS:
        raise InputError(place, f"unknown model_type {name!r}", f"Known are {', '.join(ROWS)}.")
    return ROWS[name]


def encoder_config(record: Record, place: Any = "config.json") -> EncoderConfig:
    """The encoder that a published `config.json` describes.

    Raises:
      InputError: an unknown family, a missing size, or a feature that no row has.
    """
    family = row(record, place)
    record = {**family.defaults, **record}
    missing = [name for name in _SIZES if name not in record]
    if missing:
        raise InputError(place, f"lacks {', '.join(missing)}", "Fetch the folder's config.json again.")
    activation = record[family.activation]
    if activation not in ACTIVATION_NAMES:
        raise InputError(place, f"unknown activation {activation!r}", f"Known are {', '.join(ACTIVATION_NAMES)}.")
    own = {ours: record[theirs] for theirs, ours in (_SIZES | dict(family.renamed)).items()}
    thought = family.read(record)
    return EncoderConfig(**{**own, **thought, **family.fixed, "activation": ACTIVATION_NAMES[activation]})


def record_of(config: EncoderConfig, family: str) -> dict[str, Any]:
    """The `config.json` of an encoder in a family's words.

    Raises:
      InputError: the family cannot express the encoder.
    """
    chosen = row({"model_type": family})
    record = {theirs: getattr(config, ours) for theirs, ours in (_SIZES | dict(chosen.renamed)).items()}
    record[chosen.activation] = next(theirs for theirs, ours in ACTIVATION_NAMES.items() if ours == config.activation)
    record |= chosen.written(config) | {"model_type": family, "architectures": [chosen.architectures[0]]}
    again = encoder_config(record)
    lost = [f.name for f in fields(config) if getattr(again, f.name) != getattr(config, f.name) and f.name not in _FREE]
    if lost:
        problem = f"{family} cannot express {', '.join(f'{name}={getattr(config, name)!r}' for name in lost)}"
        raise InputError("EncoderConfig", problem, "Save in the layout 'jaxret', or choose the family that fits.")
    return record


_FREE = ("embedding_init", "num_kv_heads", "head_width", "local_rope_base", "dropout")
