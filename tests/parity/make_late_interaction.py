"""Writes multi-vector folders, of sentence-transformers 6 and of Stanford's ColBERT:
python -m tests.parity.make_late_interaction [case ...].

Stanford's library is not installed. Its encoding and scoring are written here from its sources, in plain torch.
"""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from tests.parity.corpus import DOCUMENTS, QUERIES
from tests.parity.encoder_configs import ENCODERS
from tests.parity.make_encoders import plain_encoder
from tests.parity.make_sentence_transformers import projection, transformer
from tests.parity.seeded import Arrays, emptied, numpy, readable, seeded, written
from tests.parity.tiny_tokenizers import japanese_wordpiece, wordpiece

TEXTS = {"queries": QUERIES, "documents": DOCUMENTS}
JAPANESE = {
    "queries": ["梅雨がないのは北海道とどこですか。", "東京の山"],
    "documents": ["東京の北には山があります。", "川は、海へ流れる (The sea). A cat!", "北海道"],
}
MARKERS = ("[unused0]", "[unused1]")
METADATA = {
    "query_token_id": MARKERS[0],
    "doc_token_id": MARKERS[1],
    "query_token": "[質問]",
    "doc_token": "[文書]",
    "checkpoint": "a/checkpoint",
    "dim": 8,
    "doc_maxlen": 20,
    "mask_punctuation": True,
    "query_maxlen": 14,
    "attend_to_mask_tokens": False,
    "interaction": "colbert",
    "similarity": "cosine",
    "nway": 2,
    "nbits": 2,
}


def st6_bert() -> list[torch.nn.Module]:
    """As sentence-transformers rebuilds a classic ColBERT: fixed expansion that is not attended, no punctuation."""
    expansion = {"strategy": "fixed", "attend": False, "length": 14}
    first = transformer("bert", seed="mv bert", query_expansion=expansion, document_length=20)
    dense = projection("mv dense", 16, 8, bias=False, activation_function=None, module_input_name="token_embeddings")
    mask = MultiVectorMask(skiplist_words=list(string.punctuation))
    return [first, dense, mask, Normalize(module_input_name="token_embeddings")]


def st6_modernbert() -> list[torch.nn.Module]:
    """Expansion up to a least length, attended, longer queries whole; two projections, one with a residual."""
    expansion = {"strategy": "min", "attend": True, "length": 16}
    first = transformer("modernbert_masked_lm", seed="mv modern", query_expansion=expansion, document_length=24)
    settings: dict[str, Any] = {"activation_function": None, "module_input_name": "token_embeddings"}
    wide = projection("mv wide", 16, 24, bias=True, **settings)
    narrow = projection("mv narrow", 24, 8, bias=False, use_residual=True, **settings)
    return [first, wide, narrow, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]


MULTI_VECTOR = {"mv6_bert": st6_bert, "mv6_modernbert": st6_modernbert}


def multi_vector_checkpoint(name: str) -> None:
    """Writes one folder of sentence-transformers 6."""
    folder = emptied(name)
    prompts = {"query": "[Q] ", "document": "[D] "}
    model = MultiVectorEncoder(modules=MULTI_VECTOR[name](), prompts=prompts, device="cpu")
    model.save(str(folder), create_model_card=False)
    readable(folder)
    model = MultiVectorEncoder(str(folder), model_kwargs={"attn_implementation": "eager"}, device="cpu")
    about = {"layout": "multi_vector", "family": model[0].config.model_type, "dtype": "float32", "prompts": prompts}
    written(name, st6_goldens(model), about | TEXTS)


@torch.no_grad()
def st6_goldens(model: MultiVectorEncoder) -> Arrays:
    """Ids, masks and vectors of queries and documents, and all scores."""
    arrays: Arrays = {}
    for side, texts in (("query", QUERIES), ("document", DOCUMENTS)):
        features = model.preprocess(texts, prompt=model.prompts[side] or None, task=side)
        found = {"token_ids": features["input_ids"], "attention_mask": features["attention_mask"]}
        output = model(dict(features), task=side)
        found |= {"mask": output["attention_mask"], "tokens": output["token_embeddings"]}
        arrays |= {f"{side}_{key}": numpy(x if x.is_floating_point() else x.int()) for key, x in found.items()}
        encoded = (model.encode_query if side == "query" else model.encode_document)(texts, convert_to_numpy=True)
        for row, mask, vectors in zip(arrays[f"{side}_tokens"], arrays[f"{side}_mask"], encoded, strict=True):
            assert abs(row[mask.astype(bool)] - vectors).max() < 1e-5
    scores = model.similarity(model.encode_query(QUERIES), model.encode_document(DOCUMENTS))
    return arrays | {"scores": numpy(scores)}


def colbert_checkpoint(name: str) -> None:
    """Writes Stanford's layout: `bert.*` and `linear.weight` in one file, `artifact.metadata` beside it."""
    folder = emptied(name)
    bert = ENCODERS["bert"]
    plain_encoder(folder, bert, name)
    if name == "colbert_japanese":
        (folder / "tokenizer.json").unlink()
    (japanese_wordpiece if name == "colbert_japanese" else wordpiece)(folder, bert.limit, extra=MARKERS)
    tensors = {f"bert.{key}": tensor for key, tensor in load_file(folder / "model.safetensors").items()}
    linear = seeded(torch.nn.Linear(16, METADATA["dim"], bias=False), "colbert linear")
    save_file(tensors | {"linear.weight": linear.weight.data}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["HF_ColBERT"]}
    config = {key: value for key, value in config.items() if key not in ("cls_token_id", "sep_token_id")}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "artifact.metadata").write_text(json.dumps(METADATA, indent=4, ensure_ascii=False))
    readable(folder)
    about = {"layout": "colbert", "family": "bert", "dtype": "float32"}
    texts = JAPANESE if name == "colbert_japanese" else TEXTS
    written(name, colbert_goldens(folder, texts), about | texts)


@torch.no_grad()
def colbert_goldens(folder: Path, texts: dict[str, list[str]]) -> Arrays:
    """What Stanford's ColBERT computes in float32 on a CPU, from the files alone."""
    metadata = json.loads((folder / "artifact.metadata").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    weight = load_file(folder / "model.safetensors")["linear.weight"]
    arrays: Arrays = {}
    for attend in (False, True):
        ids, attention = marked(
            tokenizer, texts["queries"], metadata["query_token_id"], metadata["query_maxlen"], "max_length"
        )
        ids[ids == tokenizer.pad_token_id] = tokenizer.mask_token_id
        if attend:
            attention[ids == tokenizer.mask_token_id] = 1
        mask = ids != tokenizer.pad_token_id
        found = {"token_ids": ids, "attention_mask": attention, "mask": mask}
        found["tokens"] = token_vectors(encoder, weight, ids, attention, mask)
        arrays |= {("attended_query_" if attend else "query_") + key: as_array(x) for key, x in found.items()}
    ids, attention = marked(tokenizer, texts["documents"], metadata["doc_token_id"], metadata["doc_maxlen"], "longest")
    skipped = {tokenizer.encode(symbol, add_special_tokens=False)[0] for symbol in string.punctuation}
    mask = (ids != tokenizer.pad_token_id) & ~torch.isin(ids, torch.tensor(sorted(skipped)))
    found = {"token_ids": ids, "attention_mask": attention, "mask": mask}
    found["tokens"] = token_vectors(encoder, weight, ids, attention, mask)
    arrays |= {"document_" + key: as_array(x) for key, x in found.items()}
    arrays["skip_ids"] = as_array(torch.tensor(sorted(skipped)))
    for prefix in ("", "attended_"):
        queries = torch.from_numpy(arrays[prefix + "query_tokens"])
        similarities = torch.einsum("qsk,dtk->qdst", queries, found["tokens"])
        similarities = similarities.masked_fill(~mask[None, :, None, :], -9999.0)
        arrays[prefix + "scores"] = as_array(similarities.max(-1).values.sum(-1))
    return arrays


def marked(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], marker: str, length: int, padding: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows cut to one id less than `length`, the marker put in behind [CLS]."""
    rows = tokenizer(texts, padding=padding, truncation=True, max_length=length - 1, return_tensors="pt")
    ids, attention = rows["input_ids"], rows["attention_mask"]
    column = torch.full_like(ids[:, :1], tokenizer.convert_tokens_to_ids(marker))
    ids = torch.cat([ids[:, :1], column, ids[:, 1:]], 1)
    return ids, torch.cat([attention[:, :1], torch.ones_like(column), attention[:, 1:]], 1)


def token_vectors(
    encoder: torch.nn.Module, weight: torch.Tensor, ids: torch.Tensor, attention: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Projected, then masked, then normalised; a masked row stays 0."""
    states = encoder(input_ids=ids, attention_mask=attention).last_hidden_state
    return torch.nn.functional.normalize(states @ weight.T * mask[:, :, None].float(), dim=-1)


def as_array(x: torch.Tensor) -> Any:
    """Floats as float32, all else as int32."""
    return numpy(x if x.is_floating_point() else x.int())


def main(chosen: list[str]) -> None:
    """Writes the chosen cases, or all."""
    for name in chosen or [*MULTI_VECTOR, "colbert_bert", "colbert_japanese"]:
        (multi_vector_checkpoint if name in MULTI_VECTOR else colbert_checkpoint)(name)


if __name__ == "__main__":
    main(sys.argv[1:])
