"""The layout "colbert" of Stanford's library: an encoder, `linear.weight`, and artifact.metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxret.data.skiplists import colbert_skiplist
from jaxret.errors import InputError
from jaxret.files import write_json
from jaxret.nn.convert.table import Rule
from jaxret.nn.heads import Projection
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts.body import CONFIG, Body, write_body
from jaxret.runtime.layouts.description import Description, Layout, overridden
from jaxret.runtime.layouts.records import field, record_in
from jaxret.runtime.layouts.settings import checked_marker, plain_text, vocabulary_fields
from jaxret.runtime.model import Model

NAME, METADATA, CLASS = "colbert", "artifact.metadata", "HF_ColBERT"
DEFAULTS = {
    "query_token_id": "[unused0]",
    "doc_token_id": "[unused1]",
    "query_maxlen": 32,
    "doc_maxlen": 220,
    "dim": 128,
    "mask_punctuation": True,
    "attend_to_mask_tokens": False,
    "similarity": "cosine",
}
LINEAR = Rule("linear.weight", "multi_vector/projection_0/kernel", transposed=True)


def _matches(folder: Path) -> bool:
    if (folder / METADATA).is_file():
        return True
    return (folder / CONFIG).is_file() and CLASS in (record_in(folder / CONFIG).get("architectures") or [])


def _described(folder: Path, **overrides: Any) -> Description:
    body, place = Body.read(folder), folder / METADATA
    record = record_in(place, optional=True)
    found = {name: field(record, name, type(default), place, default) for name, default in DEFAULTS.items()}
    if found["similarity"] != "cosine":
        raise InputError(f"{place}: similarity", f"{found['similarity']!r}", "Known is cosine.")
    markers = {
        f"{side}_marker": checked_marker(body.tokenizer, found[name], f"{place}: {name}")
        for side, name in (("query", "query_token_id"), ("passage", "doc_token_id"))
    }
    config = RetrieverConfig(
        body.encoder,
        heads=("multi_vector",),
        maxsim=NAME,
        token_layers=(found["dim"],),
        attend_to_expansion=found["attend_to_mask_tokens"],
        skip_ids=tuple(sorted(colbert_skiplist(body.tokenizer))) if found["mask_punctuation"] else (),
        **vocabulary_fields(body.tokenizer),
    )
    lengths = {
        "query_max_len": body.longest(found["query_maxlen"]),
        "passage_max_len": body.longest(found["doc_maxlen"]),
    }
    text = plain_text(body.longest(), query_expansion=True, **markers, **lengths)
    model = Model(config, text, body.tokenizer, origin=body.origin(NAME, metadata=record))
    return Description(overridden(model, overrides), (body.part("encoder", extra=(LINEAR,)),))


def _saved(folder: Path, model: Model, params: Any, dtype: Any = None) -> None:
    config, text = model.config, model.text
    if config.heads != ("multi_vector",) or config.token_layers != (Projection(config.token_width),):
        problem = "the model is more than an encoder and one linear map of its tokens without bias"
        raise InputError(f"layout {NAME}", problem, 'Save in the layout "sentence_transformers" or "jaxret".')
    write_body(folder, model, params, dtype, architecture=CLASS, prefixed=True, extra=(LINEAR,))
    record = {
        "query_token_id": text.query_marker,
        "doc_token_id": text.passage_marker,
        "query_maxlen": text.query_max_len,
        "doc_maxlen": text.passage_max_len,
        "dim": config.token_width,
        "mask_punctuation": bool(config.skip_ids),
        "attend_to_mask_tokens": config.attend_to_expansion,
    }
    write_json(folder / METADATA, DEFAULTS | model.origin.get("metadata", {}) | record)


COLBERT = Layout(NAME, _matches, _described, _saved)
