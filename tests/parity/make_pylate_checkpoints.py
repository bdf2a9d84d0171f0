"""Writes PyLate's and sentence-transformers 5's folders: python -m tests.parity.make_pylate_checkpoints [case ...].

It runs in the environment of PyLate, whose sentence-transformers is the last of the 5.x layout.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pylate import models
from pylate.scores import colbert_scores
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
from sentence_transformers.sparse_encoder.models import MLMTransformer, SpladePooling

from tests.parity.corpus import DOCUMENTS, QUERIES
from tests.parity.encoder_configs import ENCODERS
from tests.parity.make_encoders import plain_encoder
from tests.parity.seeded import Arrays, emptied, numpy, readable, seeded, written

SPACED = [*QUERIES, "  cat \t alone \n"]
TEXTS = {"queries": SPACED, "documents": DOCUMENTS}
EAGER = {"attn_implementation": "eager"}


def opened(case: str, seed: str, kind: Callable[..., Any] = Transformer, **settings: Any) -> Any:
    """The encoder of a bare case, with weights of its own, as `kind` opens it."""
    with tempfile.TemporaryDirectory() as folder:
        plain_encoder(Path(folder), ENCODERS[case], seed)
        return kind(folder, **settings)


def pylate_bert() -> models.ColBERT:
    """The defaults: `[Q] ` and `[D] `, expansion that is not attended, no punctuation in passages."""
    return opened("bert", "", models.ColBERT, embedding_size=8, query_length=14, document_length=20)


def pylate_modernbert() -> models.ColBERT:
    """Attended expansion; two projections, the second with a residual."""
    wide = models.Dense(16, 24, bias=False)
    modules = [opened("modernbert_masked_lm", ""), wide, models.Dense(24, 8, bias=False, use_residual=True)]
    return models.ColBERT(modules=modules, query_length=16, document_length=24, attend_to_expansion_tokens=True)


def pylate_xlm_roberta() -> models.ColBERT:
    """Neither expansion nor markers, a skip-list of its own."""
    settings = {"query_prefix": "", "document_prefix": "", "skiplist_words": [".", "▁", "と"]}
    settings |= {"query_length": 20, "document_length": 22, "do_query_expansion": False, "embedding_size": 8}
    return opened("xlm_roberta", "", models.ColBERT, **settings)


PYLATE = {"pylate_bert": pylate_bert, "pylate_modernbert": pylate_modernbert, "pylate_xlm_roberta": pylate_xlm_roberta}


def pylate_checkpoint(name: str) -> None:
    """Writes one PyLate case; the goldens come from the folder, opened again."""
    folder = emptied(name)
    # Markers are new rows of the embedding table, so that the weights are filled once all are there.
    seeded(PYLATE[name](), name).save(str(folder), create_model_card=False)
    readable(folder)
    model = models.ColBERT(str(folder), device="cpu", model_kwargs=EAGER)
    arrays = late(model, "query", SPACED) | late(model, "document", DOCUMENTS)
    vectors = [torch.from_numpy(arrays[f"{side}_tokens"]) for side in ("query", "document")]
    masks = [torch.from_numpy(arrays[f"{side}_mask"]) for side in ("query", "document")]
    arrays["scores"] = numpy(colbert_scores(*vectors, *masks))
    about = {"layout": "pylate", "family": model[0].auto_model.config.model_type, "dtype": "float32"}
    written(name, arrays, about | TEXTS)


@torch.no_grad()
def late(model: models.ColBERT, side: str, texts: list[str]) -> Arrays:
    """Ids, masks and unit vectors of one side, padded; equal to `encode`'s where the mask keeps them."""
    query = side == "query"
    features = model.tokenize(texts, is_query=query)
    ids, attention = features["input_ids"], features["attention_mask"]
    tokens = torch.nn.functional.normalize(model(dict(features))["token_embeddings"], dim=-1)
    kept = model.skiplist_mask(input_ids=ids, skiplist=model.skiplist) & attention.bool()
    mask = (torch.ones_like(kept) if model.do_query_expansion else attention.bool()) if query else kept
    for row, row_mask, vectors in zip(tokens, mask, model.encode(texts, is_query=query), strict=True):
        assert abs(row[row_mask].numpy() - vectors).max() < 1e-5
    found = {"token_ids": ids.int(), "attention_mask": attention.int(), "mask": mask.int(), "tokens": tokens}
    return {f"{side}_{key}": numpy(tensor) for key, tensor in found.items()}


def dense_checkpoint(name: str) -> None:
    """Writes the same model as st6_minilm in the layout of sentence-transformers 5."""
    folder = emptied(name)
    first = opened("bert", "st", max_seq_length=16, do_lower_case=True)
    dense = seeded(Dense(16, 12), "st dense")
    SentenceTransformer(modules=[first, Pooling(16, "mean"), dense, Normalize()]).save(
        str(folder), create_model_card=False
    )
    readable(folder)
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs=EAGER)
    arrays: Arrays = {}
    for side, texts in (("query", SPACED), ("document", DOCUMENTS)):
        features = model.tokenize(texts)
        arrays |= {f"{side}_token_ids": numpy(features["input_ids"].int())}
        arrays |= {f"{side}_attention_mask": numpy(features["attention_mask"].int())}
        arrays |= {f"{side}_dense": model.encode(texts)}
    written(name, arrays, {"layout": "sentence_transformers", "family": "bert", "dtype": "float32"} | TEXTS)


@torch.no_grad()
def sparse_checkpoint(name: str) -> None:
    """Writes a RoBERTa SPLADE in the layout of sentence-transformers 5, as granite-embedding-30m-sparse is."""
    folder = emptied(name)
    first = opened("roberta_masked_lm", name, MLMTransformer)
    SparseEncoder(modules=[first, SpladePooling("max")]).save(str(folder), create_model_card=False)
    readable(folder)
    model = SparseEncoder(str(folder), device="cpu", model_kwargs=EAGER)
    arrays: Arrays = {}
    for side, texts in (("query", SPACED), ("document", DOCUMENTS[:3])):
        features = model.tokenize(texts)
        arrays |= {f"{side}_token_ids": numpy(features["input_ids"].int())}
        arrays |= {f"{side}_attention_mask": numpy(features["attention_mask"].int())}
        arrays |= {f"{side}_sparse": numpy(model.encode(texts, convert_to_sparse_tensor=False))}
    about = {"layout": "sparse", "family": "roberta", "dtype": "float32"}
    written(name, arrays, about | {"queries": SPACED, "documents": DOCUMENTS[:3]})


def main(chosen: list[str]) -> None:
    """Writes the chosen cases, or all."""
    others = {"st5_minilm": dense_checkpoint, "sparse5_roberta": sparse_checkpoint}
    for name in chosen or [*PYLATE, *others]:
        others.get(name, pylate_checkpoint)(name)


if __name__ == "__main__":
    main(sys.argv[1:])
