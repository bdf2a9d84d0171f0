"""The tiny configurations of every family: three or four layers, 16 to 32 wide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import (
    BertConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    XLMRobertaConfig,
    XLMRobertaXLConfig,
)

from tests.parity.tiny_tokenizers import BERT, ROBERTA, byte_bpe, llama_bpe, qwen_bpe, unigram, wordpiece

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 24}
# Four heads of 8 in a width of 16: the heads' width is not the model's.
DECODER = SMALL | {"num_key_value_heads": 2, "head_dim": 8}
WINDOWED = SMALL | {"num_hidden_layers": 7, "local_attention": 8, "max_position_embeddings": 64}

Tokenisers = Callable[[Path, int], PreTrainedTokenizerFast]


@dataclass(frozen=True)
class Encoder:
    """One bare case.

    Attributes:
      config: the class of its config.
      sizes: its settings.
      limit: the longest row of ids that it takes.
      tokenizer: trains and saves its tokeniser.
      masked_lm: with its MaskedLM head, and logits in the goldens.
      older_config: settings of config.json as published checkpoints spell them; None values are removed.
      dtype: of the stored weights.
      max_shard_size: of a file of weights, in bytes; one file by default.
      seed: cases of one seed share their weights; the case's name by default.
      bidirectional: a decoder under a 4D mask that only hides padding.
      causal_lm: stored with its language-model head, as the original decoders are, and read without.
      published: a `pytorch_model.bin` with BERT's pretraining heads and the names of its first releases.
      layers: keep every layer's states in the goldens.
    """

    config: type
    sizes: Mapping[str, Any]
    limit: int
    tokenizer: Tokenisers
    masked_lm: bool = False
    older_config: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    max_shard_size: int | None = None
    seed: str = ""
    bidirectional: bool = False
    causal_lm: bool = False
    layers: bool = True
    published: bool = False


modern_bpe = partial(byte_bpe, special=BERT)
roberta_bpe = partial(byte_bpe, special=ROBERTA)
ROBERTA_SIZES = SMALL | {"max_position_embeddings": 14, "type_vocab_size": 1}
OLD_ROPE = {"rope_parameters": None, "dtype": None, "torch_dtype": "float32"}
# Of the four wavelengths (6, 30, 140, 664) one is kept, one interpolated, two are stretched.
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0} | {
    "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}

BERT_CASE = Encoder(BertConfig, SMALL | {"max_position_embeddings": 24, "type_vocab_size": 2}, 24, wordpiece)
ROBERTA_CASE = Encoder(RobertaConfig, ROBERTA_SIZES | {"layer_norm_eps": 1e-5}, 12, roberta_bpe)
MODERN_CASE = Encoder(ModernBertConfig, WINDOWED, 40, modern_bpe)
MISTRAL_CASE = Encoder(
    MistralConfig,
    DECODER
    | {"sliding_window": None, "rms_norm_eps": 1e-5, "rope_parameters": {"rope_type": "default"} | {"rope_theta": 1e6}},
    32,
    llama_bpe,
)

ENCODERS: dict[str, Encoder] = {
    "bert": BERT_CASE,
    "roberta": ROBERTA_CASE,
    # eps and two token types as granite-embedding-30m-english has them.
    "roberta_two_types": Encoder(
        RobertaConfig, ROBERTA_SIZES | {"type_vocab_size": 2, "layer_norm_eps": 1e-12}, 12, roberta_bpe, layers=False
    ),
    "xlm_roberta": Encoder(
        XLMRobertaConfig,
        SMALL | {"max_position_embeddings": 26, "layer_norm_eps": 1e-5, "type_vocab_size": 1},
        24,
        unigram,
    ),
    "xlm_roberta_xl": Encoder(
        XLMRobertaXLConfig, SMALL | {"max_position_embeddings": 26, "type_vocab_size": 1}, 24, unigram
    ),
    "modernbert": MODERN_CASE,
    "modernbert_silu": Encoder(
        ModernBertConfig,
        WINDOWED
        | {"hidden_activation": "silu", "num_hidden_layers": 4, "local_attention": 6, "norm_bias": True}
        | {"attention_bias": True, "mlp_bias": True},
        40,
        modern_bpe,
        # layer_types and rope_parameters are what transformers 5 made of these.
        older_config={"layer_types": None, "rope_parameters": None, "global_attn_every_n_layers": 2}
        | {"global_rope_theta": 80000.0, "local_rope_theta": 10000.0, "dtype": None, "torch_dtype": "float32"},
        layers=False,
    ),
    "mistral": MISTRAL_CASE,
    "mistral_window": Encoder(
        MistralConfig,
        DECODER | {"sliding_window": 6, "head_dim": 4},
        32,
        llama_bpe,
        older_config=OLD_ROPE | {"rope_theta": 5000.0, "head_dim": None},
        causal_lm=True,
    ),
    "mistral_bidirectional": Encoder(
        MistralConfig, MISTRAL_CASE.sizes, 32, llama_bpe, seed="mistral", bidirectional=True, layers=False
    ),
    "llama": Encoder(
        LlamaConfig,
        DECODER | {"head_dim": 4},
        32,
        llama_bpe,
        older_config=OLD_ROPE | {"rope_theta": 500.0},
        layers=False,
    ),
    "llama_scaled": Encoder(
        LlamaConfig,
        DECODER,
        32,
        llama_bpe,
        older_config=OLD_ROPE | {"rope_theta": 500.0, "rope_scaling": LLAMA3},
        causal_lm=True,
        layers=False,
    ),
    "qwen2": Encoder(Qwen2Config, SMALL | {"num_key_value_heads": 2}, 32, qwen_bpe),
    "qwen3": Encoder(
        Qwen3Config,
        DECODER | {"tie_word_embeddings": True},
        32,
        qwen_bpe,
        older_config=OLD_ROPE | {"rope_theta": 1e6, "rope_scaling": None},
        causal_lm=True,
    ),
    "bert_masked_lm": Encoder(BertConfig, BERT_CASE.sizes, 24, wordpiece, masked_lm=True, layers=False),
    "bert_masked_lm_untied": Encoder(
        BertConfig, BERT_CASE.sizes | {"tie_word_embeddings": False}, 24, wordpiece, masked_lm=True, layers=False
    ),
    "roberta_masked_lm": Encoder(RobertaConfig, ROBERTA_CASE.sizes, 12, roberta_bpe, masked_lm=True, layers=False),
    "xlm_roberta_masked_lm": Encoder(
        XLMRobertaConfig,
        SMALL | {"max_position_embeddings": 26, "layer_norm_eps": 1e-5, "type_vocab_size": 1},
        24,
        unigram,
        masked_lm=True,
        layers=False,
    ),
    "modernbert_masked_lm": Encoder(
        ModernBertConfig, WINDOWED | {"num_hidden_layers": 4}, 40, modern_bpe, masked_lm=True, layers=False
    ),
    "bert_published": Encoder(BertConfig, BERT_CASE.sizes, 24, wordpiece, layers=False, published=True),
    "bert_sharded": Encoder(BertConfig, BERT_CASE.sizes, 24, wordpiece, max_shard_size=12_000, layers=False),
    "bert_float16": Encoder(BertConfig, BERT_CASE.sizes, 24, wordpiece, dtype="float16", layers=False),
    "modernbert_bfloat16": Encoder(
        ModernBertConfig, WINDOWED | {"num_hidden_layers": 4}, 40, modern_bpe, dtype="bfloat16", layers=False
    ),
}
