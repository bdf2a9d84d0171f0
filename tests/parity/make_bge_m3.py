"""Writes a BGE-M3 folder (torch pickles all): python -m tests.parity.make_bge_m3.

FlagEmbedding is not installed. Its three representations and scores are written here from its formulas, in plain torch.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn.functional import linear, normalize
from transformers import AutoModel, AutoTokenizer

from tests.parity.corpus import DOCUMENTS, QUERIES
from tests.parity.encoder_configs import ENCODERS
from tests.parity.make_encoders import plain_encoder
from tests.parity.seeded import Arrays, emptied, numpy, readable, seeded, written

NAME = "bge_m3"
LIMIT = 24
WEIGHTS = (0.4, 0.2, 0.4)  # dense, lexical, multi-vector, as its README mixes them
MODULES = (("", "models.Transformer"), ("1_Pooling", "models.Pooling"), ("2_Normalize", "models.Normalize"))
POOLING = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False} | {
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}


def checkpoint() -> Path:
    """Writes the layout of the original's first revision."""
    folder = emptied(NAME)
    plain_encoder(folder, ENCODERS["xlm_roberta"], NAME)
    torch.save(OrderedDict(load_file(folder / "model.safetensors")), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for file, width in (("colbert_linear.pt", 16), ("sparse_linear.pt", 1)):
        head = seeded(torch.nn.Linear(16, width), file).half()
        torch.save(OrderedDict((key, tensor.clone()) for key, tensor in head.state_dict().items()), folder / file)
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
        for i, (path, kind) in enumerate(MODULES)
    ]
    (folder / "1_Pooling").mkdir()
    for path, settings in {
        "modules.json": modules,
        "1_Pooling/config.json": POOLING,
        "sentence_bert_config.json": {"max_seq_length": LIMIT, "do_lower_case": False},
        "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "2.2.2"}},
    }.items():
        (folder / path).write_text(json.dumps(settings, indent=2) + "\n")
    readable(folder)
    return folder


@torch.no_grad()
def side(folder: Path, prefix: str, texts: list[str]) -> Arrays:
    """Ids and the three representations; token vectors and their mask leave [CLS] out."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    heads = [
        {key: tensor.float() for key, tensor in torch.load(folder / f"{file}_linear.pt").items()}
        for file in ("colbert", "sparse")
    ]
    rows = tokenizer(texts, padding=True, truncation=True, max_length=LIMIT, return_tensors="pt")
    ids, mask = rows["input_ids"], rows["attention_mask"]
    states = encoder(**rows).last_hidden_state
    multi_vector, lexical = (linear(states, head["weight"], head["bias"]) for head in heads)
    unused = [tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id]
    arrays = {
        "token_ids": ids.int(),
        "attention_mask": mask.int(),
        "dense": normalize(states[:, 0], dim=-1),
        "lexical": torch.relu(lexical[:, :, 0]) * ~torch.isin(ids, torch.tensor(unused)),
        "tokens": normalize(multi_vector[:, 1:] * mask[:, 1:, None].float(), dim=-1),
        "mask": mask[:, 1:].int(),
    }
    return {f"{prefix}_{key}": numpy(tensor) for key, tensor in arrays.items()}


def scores(arrays: Arrays) -> Arrays:
    """All queries against all documents: `dense_scores`, `lexical_scores`, `multi_vector_scores`, `hybrid_scores`."""
    q, d = ({key: torch.from_numpy(arrays[f"{name}_{key}"]) for key in KEYS} for name in ("query", "document"))
    found = {"dense": q["dense"] @ d["dense"].T}
    bags = [[bag(ids, weights) for ids, weights in zip(x["token_ids"], x["lexical"], strict=True)] for x in (q, d)]
    lexical = [
        [sum(one[key] * other[key] for key in one.keys() & other.keys()) for other in bags[1]] for one in bags[0]
    ]
    found["lexical"] = torch.tensor(lexical, dtype=torch.float32)
    rows = [
        [maxsim(vectors[mask.bool()], *document) for document in zip(d["tokens"], d["mask"], strict=True)]
        for vectors, mask in zip(q["tokens"], q["mask"], strict=True)
    ]
    found["multi_vector"] = torch.tensor(rows)
    weighed = [weight * score for weight, score in zip(WEIGHTS, found.values(), strict=True)]
    found["hybrid"] = sum(weighed[1:], weighed[0]) / sum(WEIGHTS)
    return {f"{key}_scores": numpy(score) for key, score in found.items()}


KEYS = ("token_ids", "dense", "lexical", "tokens", "mask")


def bag(ids: torch.Tensor, weights: torch.Tensor) -> dict[int, float]:
    """The largest weight of each id, where positive."""
    found: dict[int, float] = {}
    for token, weight in zip(ids.tolist(), weights.tolist(), strict=True):
        if weight > 0:
            found[token] = max(weight, found.get(token, 0.0))
    return found


def maxsim(q: torch.Tensor, d: torch.Tensor, mask: torch.Tensor) -> float:
    """Summed best matches over real document tokens, divided by the query's tokens."""
    return float((q @ d[mask.bool()].T).max(1).values.sum() / len(q))


def main() -> None:
    """Writes the case."""
    folder = checkpoint()
    arrays = side(folder, "query", QUERIES) | side(folder, "document", DOCUMENTS)
    about: dict[str, Any] = {"layout": "bge_m3", "family": "xlm-roberta", "dtype": "float32"}
    about |= {"hybrid_weights": WEIGHTS, "queries": QUERIES, "documents": DOCUMENTS}
    written(NAME, arrays | scores(arrays), about)


if __name__ == "__main__":
    main()
