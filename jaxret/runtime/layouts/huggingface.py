"""The layout "huggingface": config.json, weights and a tokeniser, without a word on what they retrieve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxret.errors import InputError
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts.body import CONFIG, Body, write_body
from jaxret.runtime.layouts.description import Description, Layout, overridden
from jaxret.runtime.layouts.settings import plain_text, vocabulary_fields
from jaxret.runtime.model import Model

NAME = "huggingface"


def _matches(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def _described(folder: Path, **overrides: Any) -> Description:
    """A dense retriever as sentence-transformers makes one of a bare model: the mean of all states, and cosines.

    `heads` with "lexical" makes it a SPLADE, with the checkpoint's head of a language model, unless `lm_head` is None.
    """
    body = Body.read(folder)
    heads = tuple(overrides.get("heads", ("dense",)))
    config = RetrieverConfig(
        body.encoder,
        heads=heads,
        pooling="mean",
        normalize=False,
        similarity="cosine",
        lm_head=body.lm_head if "lexical" in heads else None,
        skip_ids=tuple(sorted(body.tokenizer.skiplist())) if "multi_vector" in heads else (),
        **vocabulary_fields(body.tokenizer),
    )
    model = Model(config, plain_text(body.longest()), body.tokenizer, origin=body.origin(NAME))
    model = overridden(model, overrides)
    groups = ("encoder", "lm_head") if model.config.lm_head else ("encoder",)
    return Description(model, (body.part(*groups),))


def _saved(folder: Path, model: Model, params: Any, dtype: Any = None) -> None:
    if beyond := sorted(set(params) - {"encoder", "lm_head"}):
        fix = 'Save in the layout "sentence_transformers" or "jaxret".'
        raise InputError("layout", f"{NAME} has no place for {', '.join(beyond)}", fix)
    write_body(folder, model, params, dtype)


HUGGINGFACE = Layout(NAME, _matches, _described, _saved, bare=True)
