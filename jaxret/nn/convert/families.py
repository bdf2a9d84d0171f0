"""Tensor names of the published families: one table each, and the prefix that a language model puts before them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from jaxret.nn.convert.table import Rule, Table


@dataclass(frozen=True)
class Family:
    """The tensors of one family.

    Attributes:
      prefix: before the body's names in a checkpoint that has a head.
      body: the encoder's rules, without the prefix.
      head: the language model's head.
      ignored: regular expressions, without the prefix, of tensors that hold nothing of ours.
      heads: regular expressions of every head's tensors, which a model without such a head leaves out.
      copies: of the tensors that repeat the token embeddings or the bias in a tied head.
    """

    prefix: str
    body: tuple[Rule, ...]
    head: tuple[Rule, ...]
    ignored: tuple[str, ...]
    heads: tuple[str, ...]
    copies: tuple[str, ...]

    def table(self, *, prefix: str = "", head: bool = False) -> Table:
        """The rules for a checkpoint with this prefix before the body's names, with or without the head."""
        body = tuple(replace(rule, theirs=prefix + rule.theirs) for rule in self.body)
        ignored = tuple(re.escape(prefix) + name for name in self.ignored)
        if head:
            return Table((*body, *self.head), (*ignored, *self.copies))
        return Table(body, (*ignored, *self.heads))

    def prefix_of(self, names: Iterable[str]) -> str:
        """The prefix of a checkpoint with these tensor names: the family's, or none."""
        return self.prefix if any(name.startswith(self.prefix) for name in names) else ""


def _linear(theirs: str, ours: str, *, bias: bool = True, optional_bias: bool = False) -> list[Rule]:
    rules = [Rule(f"{theirs}.weight", f"{ours}/kernel", transposed=True)]
    return rules + ([Rule(f"{theirs}.bias", f"{ours}/bias", optional=optional_bias)] if bias else [])


def _norm(theirs: str, ours: str, *, bias: bool = True, first_layer: int = 0) -> list[Rule]:
    rules = [Rule(f"{theirs}.weight", f"{ours}/scale", first_layer=first_layer)]
    return rules + ([Rule(f"{theirs}.bias", f"{ours}/bias", first_layer=first_layer)] if bias else [])


def _fused(theirs: str, ours: tuple[str, ...]) -> list[Rule]:
    parts = [(name, (number, len(ours))) for number, name in enumerate(ours)]
    weights = [Rule(f"{theirs}.weight", f"{name}/kernel", transposed=True, part=part) for name, part in parts]
    return weights + [Rule(f"{theirs}.bias", f"{name}/bias", part=part) for name, part in parts]


_EMBEDDINGS = [
    Rule("embeddings.word_embeddings.weight", "encoder/token_embedding"),
    Rule("embeddings.position_embeddings.weight", "encoder/position_embedding"),
    Rule("embeddings.token_type_embeddings.weight", "encoder/type_embedding"),
]
_LAYER = "encoder.layer.{layer}"
_OURS = "encoder/layers"


def _attention(query_norm: str, mlp_norm: str) -> list[Rule]:
    rules = []
    for name in ("query", "key", "value"):
        rules += _linear(f"{_LAYER}.attention.self.{name}", f"{_OURS}/attention/{name}")
    rules += _linear(f"{_LAYER}.attention.output.dense", f"{_OURS}/attention/output")
    rules += _norm(f"{_LAYER}.{query_norm}", f"{_OURS}/attention_norm")
    rules += _linear(f"{_LAYER}.intermediate.dense", f"{_OURS}/mlp/up")
    rules += _linear(f"{_LAYER}.output.dense", f"{_OURS}/mlp/down")
    return rules + _norm(f"{_LAYER}.{mlp_norm}", f"{_OURS}/mlp_norm")


def _old_norms(rules: list[Rule]) -> list[Rule]:
    """The norms as TensorFlow named them, in BERT checkpoints of 2018 and 2019."""
    spellings = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
    return [
        replace(rule, theirs=rule.theirs.replace(new, old))
        for rule in rules
        for new, old in spellings
        if rule.theirs.endswith(new)
    ]


_BERT_BODY = [
    *_EMBEDDINGS,
    *_norm("embeddings.LayerNorm", "encoder/embedding_norm"),
    *_attention("attention.output.LayerNorm", "output.LayerNorm"),
]
_XL_BODY = [
    *_EMBEDDINGS,
    *_attention("attention.self_attn_layer_norm", "LayerNorm"),
    *_norm("encoder.LayerNorm", "encoder/final_norm"),
]
_BERT_HEAD = [
    *_linear("cls.predictions.transform.dense", "lm_head/transform"),
    *_norm("cls.predictions.transform.LayerNorm", "lm_head/norm"),
    Rule("cls.predictions.bias", "lm_head/bias"),
    Rule("cls.predictions.decoder.weight", "lm_head/decoder"),
]
_ROBERTA_HEAD = [
    *_linear("lm_head.dense", "lm_head/transform"),
    *_norm("lm_head.layer_norm", "lm_head/norm"),
    Rule("lm_head.bias", "lm_head/bias"),
    Rule("lm_head.decoder.weight", "lm_head/decoder"),
]
_BERT_IGNORED = (r"pooler\..*", r"embeddings\.position_ids")

_MODERN = "layers.{layer}"
_MODERNBERT = Family(
    "model.",
    (
        Rule("embeddings.tok_embeddings.weight", "encoder/token_embedding"),
        *_norm("embeddings.norm", "encoder/embedding_norm"),
        *_norm(f"{_MODERN}.attn_norm", f"{_OURS}/attention_norm", first_layer=1),
        *_fused(f"{_MODERN}.attn.Wqkv", tuple(f"{_OURS}/attention/{name}" for name in ("query", "key", "value"))),
        *_linear(f"{_MODERN}.attn.Wo", f"{_OURS}/attention/output"),
        *_norm(f"{_MODERN}.mlp_norm", f"{_OURS}/mlp_norm"),
        *_fused(f"{_MODERN}.mlp.Wi", (f"{_OURS}/mlp/gate", f"{_OURS}/mlp/up")),
        *_linear(f"{_MODERN}.mlp.Wo", f"{_OURS}/mlp/down"),
        *_norm("final_norm", "encoder/final_norm"),
    ),
    (
        *_linear("head.dense", "lm_head/transform"),
        *_norm("head.norm", "lm_head/norm"),
        Rule("decoder.bias", "lm_head/bias"),
        Rule("decoder.weight", "lm_head/decoder"),
    ),
    (),
    (r"head\..*", r"decoder\..*", r"classifier\..*"),
    (r"decoder\.weight",),
)
_DECODER = Family(
    "model.",
    (
        Rule("embed_tokens.weight", "encoder/token_embedding"),
        *_norm(f"{_MODERN}.input_layernorm", f"{_OURS}/attention_norm", bias=False),
        *(
            rule
            for short, name in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output"))
            for rule in _linear(f"{_MODERN}.self_attn.{short}_proj", f"{_OURS}/attention/{name}")
        ),
        *_norm(f"{_MODERN}.self_attn.q_norm", f"{_OURS}/attention/query_norm", bias=False),
        *_norm(f"{_MODERN}.self_attn.k_norm", f"{_OURS}/attention/key_norm", bias=False),
        *_norm(f"{_MODERN}.post_attention_layernorm", f"{_OURS}/mlp_norm", bias=False),
        *(
            rule
            for name in ("gate", "up", "down")
            for rule in _linear(f"{_MODERN}.mlp.{name}_proj", f"{_OURS}/mlp/{name}")
        ),
        *_norm("norm", "encoder/final_norm", bias=False),
    ),
    (Rule("lm_head.weight", "lm_head/decoder"),),
    (r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
    (r"lm_head\..*", r"score\..*"),
    (r"lm_head\.weight",),
)


def _roberta(body: list[Rule]) -> Family:
    heads, copies = (r"lm_head\..*", r"classifier\..*"), (r"lm_head\.decoder\.(weight|bias)",)
    return Family("roberta.", tuple(body), tuple(_ROBERTA_HEAD), _BERT_IGNORED, heads, copies)


FAMILIES = {
    "bert": Family(
        "bert.",
        (*_BERT_BODY, *_old_norms(_BERT_BODY)),
        (*_BERT_HEAD, *_old_norms(_BERT_HEAD)),
        _BERT_IGNORED,
        (r"cls\..*", r"classifier\..*"),
        (r"cls\.predictions\.decoder\.(weight|bias)", r"cls\.seq_relationship\..*"),
    ),
    "roberta": _roberta(_BERT_BODY),
    "camembert": _roberta(_BERT_BODY),
    "xlm-roberta": _roberta(_BERT_BODY),
    "xlm-roberta-xl": _roberta(_XL_BODY),
    "modernbert": _MODERNBERT,
    "mistral": _DECODER,
    "llama": _DECODER,
    "qwen2": _DECODER,
    "qwen3": _DECODER,
}
