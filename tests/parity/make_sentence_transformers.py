"""Writes sentence-transformers 6 folders: python -m tests.parity.make_sentence_transformers [case ...]."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import SpladePooling

from tests.parity.corpus import DOCUMENTS, QUERIES
from tests.parity.encoder_configs import ENCODERS
from tests.parity.make_encoders import plain_encoder
from tests.parity.seeded import Arrays, emptied, numpy, readable, seeded, written

PROMPTS = {"query": "query: ", "document": "passage: "}
TEXTS = {"queries": QUERIES, "documents": DOCUMENTS}
# White space at the ends and a run of it inside.
SPACED = {"queries": [*QUERIES, "  cat \t alone \n"], "documents": DOCUMENTS}


def transformer(case: str, **settings: Any) -> Transformer:
    """The encoder of a bare case, with weights of its own, as the first module."""
    with tempfile.TemporaryDirectory() as folder:
        plain_encoder(Path(folder), ENCODERS[case], settings.pop("seed"))
        return Transformer(folder, model_kwargs={"attn_implementation": "eager"}, **settings)


def projection(seed: str, width: int, out: int, **settings: Any) -> Dense:
    """A linear map with random weights."""
    return seeded(Dense(width, out, **settings), seed)


def minilm() -> tuple[SentenceTransformer, dict[str, Any]]:
    """MiniLM's modules and one projection: mean, Dense with Tanh and bias, Normalize."""
    first = transformer("bert", seed="st", max_seq_length=16)
    modules = [first, Pooling(16, "mean"), projection("st dense", 16, 12), Normalize()]
    return SentenceTransformer(modules=modules), TEXTS


def prompted() -> tuple[SentenceTransformer, dict[str, Any]]:
    """E5's and Arctic's: XLM-R, cls, prompts before the texts."""
    first = transformer("xlm_roberta", seed="st prompts")
    return SentenceTransformer(modules=[first, Pooling(16, "cls"), Normalize()], prompts=PROMPTS), SPACED


def unprompted_pooling() -> tuple[SentenceTransformer, dict[str, Any]]:
    """Instructor's: the prompt is read and left out of the mean; nothing is normalised; a residual projection."""
    first = transformer("bert", seed="st unprompted")
    dense = projection("st residual", 16, 16, bias=False, activation_function=torch.nn.ReLU(), use_residual=True)
    modules = [first, Pooling(16, ("cls", "mean"), include_prompt=False), Dense(32, 16), dense]
    seeded(modules[2], "st unprompted dense")
    return SentenceTransformer(modules=modules, prompts=PROMPTS), TEXTS


def last_token() -> tuple[SentenceTransformer, dict[str, Any]]:
    """Qwen3-Embedding's: a causal decoder padded on the left, its last token, an instruction before queries."""
    first = transformer("qwen3", seed="st last")
    first.tokenizer.padding_side = "left"
    prompts = {"query": "Instruct: find\nQuery:", "document": ""}
    return SentenceTransformer(modules=[first, Pooling(16, "lasttoken"), Normalize()], prompts=prompts), SPACED


DENSE: dict[str, Callable[[], tuple[SentenceTransformer, dict[str, Any]]]] = {
    "st6_minilm": minilm,
    "st6_prompts": prompted,
    "st6_without_prompt": unprompted_pooling,
    "st6_last_token": last_token,
}
SPARSE = {"sparse6_bert": "bert_masked_lm", "sparse6_modernbert": "modernbert_masked_lm"}


def dense_checkpoint(name: str) -> None:
    """Writes one dense case; the goldens come from the folder, opened again."""
    folder = emptied(name)
    model, texts = DENSE[name]()
    model.save(str(folder), create_model_card=False)
    readable(folder)
    model = SentenceTransformer(str(folder), model_kwargs={"attn_implementation": "eager"}, device="cpu")
    arrays = side(model, "query_", model.encode_query, texts["queries"])
    arrays |= side(model, "document_", model.encode_document, texts["documents"])
    shortened = SentenceTransformer(str(folder), truncate_dim=8, device="cpu")
    arrays["document_dense_8"] = shortened.encode_document(texts["documents"])
    arrays["similarity"] = numpy(model.similarity(arrays["query_dense"], arrays["document_dense"]))
    if name == "st6_minilm":
        arrays |= poolings(model, texts["documents"])
    written(name, arrays, about(model, "sentence_transformers") | texts)


def side(model: SentenceTransformer, prefix: str, encode: Callable[..., Any], texts: list[str]) -> Arrays:
    """Ids, attention and embeddings of the queries or the documents."""
    prompt = model.prompts.get(prefix[:-1]) or None
    features = model.preprocess(texts, prompt=prompt, task=prefix[:-1])
    found = {"token_ids": features["input_ids"], "attention_mask": features["attention_mask"]}
    arrays = {prefix + key: numpy(value.to(torch.int32)) for key, value in found.items()}
    dense = encode(texts, batch_size=32)
    return arrays | {prefix + "dense": dense if not isinstance(dense, torch.Tensor) else numpy(dense.to_dense())}


@torch.no_grad()
def poolings(model: SentenceTransformer, texts: list[str]) -> Arrays:
    """Every pooling over the same states, for padding on the right and on the left."""
    arrays = {}
    for sidedness in ("right", "left"):
        model.tokenizer.padding_side = sidedness
        features = model[0](model.preprocess(texts))
        prefix = "pooling_" if sidedness == "right" else "left_pooling_"
        arrays[prefix + "states"] = numpy(features["token_embeddings"])
        arrays[prefix + "mask"] = numpy(features["attention_mask"].to(torch.int32))
        for mode in (*Pooling.POOLING_MODES, ("cls", "max", "mean")):
            name = mode if isinstance(mode, str) else "+".join(mode)
            arrays[prefix + name] = numpy(Pooling(16, mode)(dict(features))["sentence_embedding"])
    return arrays


@torch.no_grad()
def sparse_checkpoint(name: str) -> None:
    """Writes one SPLADE case, with the vectors of every pooling and activation over the same logits."""
    folder = emptied(name)
    first = transformer(SPARSE[name], seed=name, transformer_task="fill-mask")
    SparseEncoder(modules=[first, SpladePooling("max")]).save(str(folder), create_model_card=False)
    readable(folder)
    model = SparseEncoder(str(folder), model_kwargs={"attn_implementation": "eager"}, device="cpu")
    texts = {"queries": QUERIES[:2], "documents": DOCUMENTS[:3]}
    arrays = side(model, "query_", model.encode_query, texts["queries"])
    arrays |= side(model, "document_", model.encode_document, texts["documents"])
    arrays = {key.replace("_dense", "_sparse"): value for key, value in arrays.items()}
    logits = model[0](model.preprocess(texts["documents"]))
    for pooling in SpladePooling.SPLADE_POOLING_MODES:
        for activation in SpladePooling.SPLADE_ACTIVATION:
            features = SpladePooling(pooling, activation).eval()(dict(logits))
            arrays[f"document_{pooling}_{activation}"] = numpy(features["sentence_embedding"])
    arrays["similarity"] = arrays["query_sparse"] @ arrays["document_sparse"].T
    written(name, arrays, about(model, "sparse") | texts)


def about(model: SentenceTransformer, layout: str) -> dict[str, Any]:
    """What texts.json says besides the texts."""
    return {"layout": layout, "family": model[0].config.model_type, "dtype": "float32"} | {"prompts": model.prompts}


def main(chosen: list[str]) -> None:
    """Writes the chosen cases, or all."""
    for name in chosen or [*DENSE, *SPARSE]:
        (dense_checkpoint if name in DENSE else sparse_checkpoint)(name)


if __name__ == "__main__":
    main(sys.argv[1:])
