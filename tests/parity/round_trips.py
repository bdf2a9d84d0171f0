"""Models to save, and how close to ours must be what the original libraries make of the saved folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.data.pretrained_tokenizer import PretrainedTokenizer
from jaxret.data.text import TextConfig
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts import load_pretrained, save_pretrained
from jaxret.runtime.layouts.settings import plain_text
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import Model
from tests.parity.cases import Case
from tests.parity.embedded import embedded

LIVE = 1e-5  # how close is equal, where both sides read the same file
EAGER = {"attn_implementation": "eager"}
TEXTS_OF = {"query": "queries", "document": "documents"}
Saved = tuple[Model, Any, Path]


def assert_close(ours: Any, theirs: Any) -> None:
    """Equal shapes, and numbers that differ by no more than `LIVE` of the largest."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape and np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=LIVE * np.abs(theirs).max(), rtol=0)


def assert_same_tokens(saved: Saved, texts: Any, encoded: Callable[[Sequence[str], str], Any]) -> None:
    """Ours equal `encoded(texts, side)`, one array of kept token vectors a text, on both sides."""
    model, params, _ = saved
    for side, key in TEXTS_OF.items():
        ours = embedded(model, params, texts, side)
        for vectors, mask, row in zip(ours.tokens, ours.mask, encoded(texts[key], side), strict=True):
            assert_close(vectors[mask], row)


def resaved(case: Case, folder: Path, **settings: Any) -> Saved:
    """A case, loaded and saved again: the model, its parameters and the new folder."""
    model, params = load_pretrained(case.folder, device_mesh(), **settings)
    return model, params, save_pretrained(folder, model, params)


def fresh(
    name: str,
    layout: str,
    folder: Path,
    random_params: Callable[[Any], Any],
    text: TextConfig | None = None,
    **settings: Any,
) -> Saved:
    """A model that never was a checkpoint, saved: an encoder of a case's shape, its tokeniser, random parameters.

    Args:
      name: of the case.
      layout: to save it in.
      folder: where to.
      random_params: the fixture.
      text: its template; 20 ids and nothing else by default.
      settings: fields of RetrieverConfig.
    """
    found, _ = load_pretrained(Case(name).folder, device_mesh())
    given = {"encoder": found.config.encoder, "mask_id": found.config.mask_id}
    given |= {"special_ids": found.config.special_ids}
    model = Model(
        RetrieverConfig(**given | settings), text or plain_text(20), PretrainedTokenizer.load(Case(name).folder)
    )
    assert not model.origin
    params = random_params(model.abstract_params())
    return model, params, save_pretrained(folder, model, params, layout)
