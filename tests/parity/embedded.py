"""Texts of a case, embedded by a model of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxret.data.text import padded, passage_ids, query_ids
from jaxret.nn.retriever import Embeddings
from jaxret.runtime.model import Model


def embedded(model: Model, params: Any, texts: Mapping[str, Sequence[str]], side: str) -> Embeddings:
    """Arrays on the host of `texts["queries"]` or `texts["documents"]`; `side` is "query" or "document"."""
    if side == "query":
        rows, ours = query_ids(model.tokenizer, model.text, texts["queries"]), "query"
    else:
        rows, ours = passage_ids(model.tokenizer, model.text, texts["documents"]), "passage"
    found = jax.jit(model.apply, static_argnums=2)(params, padded(rows), ours)
    return jax.tree.map(np.asarray, found)
