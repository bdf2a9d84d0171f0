"""The Python interface: a loaded retriever that encodes texts, compares them and saves itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxret.data.text import passage_text
from jaxret.errors import InputError
from jaxret.nn.retriever import Embeddings
from jaxret.ops.lexical import lexical_scores
from jaxret.ops.maxsim import RULES
from jaxret.ops.vectors import unit
from jaxret.runtime.layouts import load_pretrained, save_pretrained
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import Model
from jaxret.search.encode import TextEncoder

MODES = ("dense", "lexical", "multi_vector")
HYBRID = "hybrid"
Scores = Float[np.ndarray, "n m"]


class Embedder:
    """A model, its parameters on a mesh, and what users do with them. Made by `jaxret.from_pretrained`.

    Args:
      model: what it is.
      params: its parameters, placed on the mesh.
      mesh: the devices.
    """

    def __init__(self, model: Model, params: Any, mesh: Mesh):
        self.model, self.params, self.mesh = model, params, mesh

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        mesh_shape: Sequence[int] = (-1, 1, 1),
        precision: str = "auto",
        attention: str = "auto",
        **settings: Any,
    ) -> Embedder:
        """Loads a checkpoint of any layout in `docs/models.md`.

        Args:
          path: a folder, or "hf:org/name" for the Hugging Face hub.
          mesh_shape: sizes of `data, fsdp, tensor`; one may be -1.
          precision: of the products, "auto", "float32" or "bfloat16".
          attention: "auto", "plain", "xla", "cudnn" or "splash".
          **settings: other values for fields of RetrieverConfig, EncoderConfig or TextConfig.

        Raises:
          InputError: no such folder or model, an unknown layout, or tensors that do not fit.
        """
        mesh = device_mesh(mesh_shape)
        model, params = load_pretrained(path, mesh, precision=precision, attention=attention, **settings)
        return cls(model, params, mesh)

    def encode_query(
        self, texts: str | Sequence[str], *, batch_size: int | None = None, show_progress_bar: bool = False
    ) -> Embeddings:
        """Embeds queries, in the order given; see `encode_document`."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        _check(texts, batch_size)
        with shown_progress(show_progress_bar, "queries", len(texts)) as advance:
            return self._encoder.queries(texts, advance, batch_size).padded(self.model.config)

    def encode_document(
        self,
        documents: str | Sequence[str | Mapping[str, str]],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
    ) -> Embeddings:
        """Embeds documents, in the order given, as float32 arrays on the host.

        Args:
          documents: texts, or {"title", "text"} records; a single text is a list of one.
          batch_size: most texts of a batch on one device; by default as many as a fixed number of tokens allows.
          show_progress_bar: show one.

        Raises:
          InputError: something that is not a text, with its number.
        """
        records = [documents] if isinstance(documents, str) else list(documents)
        separator = self.model.text.title_separator
        texts = [_joined(number, record, separator) for number, record in enumerate(records)]
        _check(texts, batch_size)
        with shown_progress(show_progress_bar, "documents", len(texts)) as advance:
            return self._encoder.passages(texts, advance, batch_size).padded(self.model.config)

    def similarity(
        self,
        queries: Embeddings,
        documents: Embeddings,
        mode: str | None = None,
        *,
        weights: Mapping[str, float] | None = None,
        maxsim: str | None = None,
    ) -> Scores:
        """The score of every query with every document, float32.

        Args:
          queries, documents: what `encode_query` and `encode_document` gave.
          mode: "dense", "lexical", "multi_vector" or "hybrid"; by default the first that the model has.
          weights: of the modes in a hybrid score, their weighted mean (BGE-M3, section 3.2); all alike by default.
          maxsim: the rule for token vectors, see `ops.maxsim.RULES`; the model's own by default.
        """
        if mode == HYBRID:
            weights = dict.fromkeys(self.model.config.heads, 1.0) if weights is None else weights
            total = sum(weights.values())
            if not weights or total <= 0:
                raise InputError("weights", f"{dict(weights)} do not add up to more than 0", "Give positive weights.")
            scores = [
                weight / total * self.similarity(queries, documents, name, maxsim=maxsim)
                for name, weight in weights.items()
            ]
            return np.asarray(np.sum(scores, axis=0), np.float32)
        mode = self.model.config.heads[0] if mode is None else mode
        if mode not in self.model.config.heads:
            known = ", ".join((*self.model.config.heads, HYBRID))
            raise InputError("mode", f"the model has no {mode!r}", f"Choose one of {known}.")
        return np.asarray(self._scores(mode, maxsim or self.model.config.maxsim)(queries, documents))

    def save_pretrained(self, path: str | Path, layout: str = "auto", dtype: str = "float32") -> Path:
        """Writes a checkpoint in a layout of `docs/models.md`, by default the one that it was loaded from."""
        return save_pretrained(path, self.model, self.params, layout, dtype)

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder(self.model, self.params, self.mesh)

    def _scores(self, mode: str, rule: str) -> Callable[[Embeddings, Embeddings], Any]:
        if rule not in RULES:
            raise InputError("maxsim", f"unknown rule {rule!r}", f"Choose one of {', '.join(RULES)}.")
        cosine = self.model.config.similarity == "cosine" and not self.model.config.normalize
        score = {
            "dense": _cosines if cosine else _products,
            "lexical": lambda q, d: lexical_scores(q.lexical.spread(), d.lexical.spread()),
            "multi_vector": lambda q, d: RULES[rule](*(jnp.asarray(x) for x in (q.tokens, d.tokens, q.mask, d.mask))),
        }
        return score[mode]


def _products(q: Embeddings, d: Embeddings) -> Any:
    return jnp.einsum("ne,me->nm", q.dense, d.dense, preferred_element_type=jnp.float32)


def _cosines(q: Embeddings, d: Embeddings) -> Any:
    return jnp.einsum("ne,me->nm", *(unit(jnp.asarray(x.dense)) for x in (q, d)), preferred_element_type=jnp.float32)


def _joined(number: int, record: str | Mapping[str, str], separator: str) -> str:
    if isinstance(record, Mapping):
        if not isinstance(record.get("text"), str) or not isinstance(record.get("title", ""), str):
            problem = f"is {dict(record)!r}"[:100]
            raise InputError(f"document {number}", problem, 'Give {"title": ..., "text": ...}.')
        return passage_text(record.get("title", ""), record["text"], separator)
    return record


def _check(texts: Sequence[Any], batch_size: int | None) -> None:
    if batch_size is not None and batch_size < 1:
        raise InputError("batch_size", f"{batch_size} is not a number of texts", "Give 1 or more.")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {number}", f"is a {type(text).__name__}, not a string", "Give strings.")


@contextmanager
def shown_progress(shown: bool, name: str, total: int) -> Iterator[Callable[[int], None] | None]:
    """A progress bar if `shown`: what tells it how many more are done, else None."""
    if not shown:
        yield None
        return
    from rich.progress import Progress

    with Progress() as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.advance(task, done)
