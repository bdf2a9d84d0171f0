"""Writes cross-encoders as their libraries do: python -m tests.parity.make_cross_encoders [case ...]."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    ModernBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from tests.parity.corpus import DOCUMENTS, QUERIES
from tests.parity.encoder_configs import SMALL, Tokenisers, modern_bpe, roberta_bpe
from tests.parity.make_encoders import special_ids
from tests.parity.seeded import Arrays, emptied, numpy, readable, seeded, written
from tests.parity.tiny_tokenizers import unigram, wordpiece

PAIRS = [[query, document] for query in QUERIES for document in (*DOCUMENTS[:2], DOCUMENTS[4])]
IDENTITY = "torch.nn.modules.linear.Identity"
TINY = SMALL | {"num_hidden_layers": 2}
EAGER = {"attn_implementation": "eager"}


@dataclass(frozen=True)
class Scorer:
    """One case.

    Attributes:
      config: the class of its config.
      sizes: its settings.
      limit: the longest pair.
      tokenizer: trains and saves its tokeniser.
      more: fields of config.json.
      activation: saved by sentence-transformers 6, with this one.
    """

    config: type
    sizes: Mapping[str, Any]
    limit: int
    tokenizer: Tokenisers
    more: Mapping[str, Any] = field(default_factory=dict)
    activation: torch.nn.Module | None = None


SCORERS = {
    "ce_bert": Scorer(
        BertConfig, TINY | {"max_position_embeddings": 48}, 48, wordpiece, activation=torch.nn.Identity()
    ),
    # As published by its authors: nothing says what follows the score, so CrossEncoder takes a sigmoid.
    "ce_roberta": Scorer(RobertaConfig, TINY | {"max_position_embeddings": 39, "type_vocab_size": 1}, 37, roberta_bpe),
    # BGE-reranker's layout, and what sentence-transformers before 4 wrote.
    "ce_xlm_roberta": Scorer(
        XLMRobertaConfig,
        TINY | {"max_position_embeddings": 42, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
        40,
        unigram,
        {"sbert_ce_default_activation_function": IDENTITY},
    ),
    # As sentence-transformers 4 and 5 write it.
    "ce_modernbert": Scorer(
        ModernBertConfig,
        TINY | {"local_attention": 8, "max_position_embeddings": 64, "classifier_pooling": "mean", "norm_bias": True},
        45,
        modern_bpe,
        {"sentence_transformers": {"activation_fn": IDENTITY, "version": "5.3.0"}},
    ),
}


def cross_encoder_checkpoint(name: str, case: Scorer) -> None:
    """Writes one case."""
    folder = emptied(name)
    case.tokenizer(folder, case.limit)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = case.config(**case.sizes, vocab_size=len(tokenizer), num_labels=1, **special_ids(tokenizer))
    seeded(AutoModelForSequenceClassification.from_config(config), name).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(case.more), indent=2) + "\n")
    if case.activation:
        scorer = CrossEncoder(str(folder), device="cpu", activation_fn=case.activation)
        scorer.save(str(folder), create_model_card=False)
    readable(folder)
    about = {"layout": "cross_encoder", "family": config.model_type, "dtype": "float32", "pairs": PAIRS}
    written(name, scored(folder, PAIRS), about)


@torch.no_grad()
def scored(folder: Path, pairs: list[list[str]]) -> Arrays:
    """What transformers makes of the pairs (ids, mask, perhaps types, logits), and CrossEncoder (scores)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(pairs, truncation="longest_first", padding=True, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **EAGER).eval()
    library = CrossEncoder(str(folder), device="cpu", model_kwargs=EAGER)
    arrays = {
        "token_ids": numpy(inputs["input_ids"].to(torch.int32)),
        "attention_mask": numpy(inputs["attention_mask"].to(torch.int32)),
        "logits": numpy(model(**inputs).logits[:, 0]),
        "scores": library.predict(pairs, show_progress_bar=False),
    }
    if "token_type_ids" in inputs:
        arrays["token_types"] = numpy(inputs["token_type_ids"].to(torch.int32))
    return arrays


def main(chosen: list[str]) -> None:
    """Writes the chosen cases, or all."""
    for name in chosen or SCORERS:
        cross_encoder_checkpoint(name, SCORERS[name])


if __name__ == "__main__":
    main(sys.argv[1:])
