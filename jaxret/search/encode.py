"""Texts to vectors: length-bucketed batches over the whole mesh, in the order of the input."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxret.data.text import padded, passage_ids, query_ids
from jaxret.nn.retriever import Embeddings, RetrieverConfig, Side
from jaxret.runtime.mesh import batch_sharding
from jaxret.runtime.model import Model
from jaxret.runtime.precision import cast, compute_dtype
from jaxret.search.lengths import filled_rows, longest_first
from jaxret.search.vectors import Ragged, Vectors

# A CPU is fastest with what its caches hold.
BATCH_TOKENS = {"cpu": 1024, "gpu": 65536, "tpu": 32768}
logger = logging.getLogger(__name__)


class TextEncoder:
    """A model and its parameters on a mesh, compiled once for each shape of a batch.

    Args:
      model: what the model is.
      params: its parameters, placed on the mesh; they are kept in the compute dtype.
      mesh: the devices; a batch is split over `data` and `fsdp`.
      batch_tokens: tokens of a batch on one device, padding included; by default what suits the platform.
      batch_rows: texts of a batch on one device, instead.

    Attributes:
      shapes: `[rows length]` of the batches compiled so far: one for each of the `fine_lengths` that occur, and those
        of a last batch, whose rows are a power of two.
    """

    def __init__(
        self, model: Model, params: Any, mesh: Mesh, batch_tokens: int | None = None, batch_rows: int | None = None
    ):
        self.model, self.mesh = model, mesh
        self.params = jax.jit(cast, static_argnums=1)(params, compute_dtype(model.precision))
        self.shapes: set[tuple[int, int]] = set()
        self._batch_tokens = batch_tokens or BATCH_TOKENS.get(jax.default_backend(), BATCH_TOKENS["gpu"])
        self._batch_rows = batch_rows
        self._apply = jax.jit(self._on_mesh, static_argnums=2)

    def _on_mesh(self, params: Any, token_ids: jax.Array, side: Side) -> Embeddings:
        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
            return self.model.apply(params, token_ids, side)

    def queries(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Vectors:
        """Vectors of queries; `progress` hears how many more texts are done."""
        return self._vectors(query_ids(self.model.tokenizer, self.model.text, texts), "query", progress)

    def passages(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Vectors:
        """Vectors of passages (title and text already joined)."""
        return self._vectors(passage_ids(self.model.tokenizer, self.model.text, texts), "passage", progress)

    def _vectors(self, rows: list[list[int]], side: Side, progress: Callable[[int], None] | None) -> Vectors:
        if not rows:
            return _no_vectors(self.model.config)
        parts: list[Any] = [None] * len(rows)
        for chosen, embeddings in self._embedded(rows, side):
            for place, row in enumerate(chosen):
                parts[row] = _one_text(embeddings, place)
            if progress:
                progress(len(chosen))
        dense, tokens, terms, weights = zip(*parts, strict=True)
        return Vectors(
            dense=None if dense[0] is None else np.stack(dense),
            tokens=None if tokens[0] is None else Ragged.from_rows(tokens),
            term_ids=None if terms[0] is None else Ragged.from_rows(terms),
            term_weights=None if weights[0] is None else Ragged.from_rows(weights),
        )

    def _embedded(self, rows: list[list[int]], side: Side) -> Iterator[tuple[np.ndarray, Embeddings]]:
        """Rows and what became of them; the devices are one batch ahead of the host."""
        waiting: tuple[np.ndarray, Embeddings] | None = None
        for chosen, ids in self._batches(rows):
            embeddings = self._apply(self.params, ids, side)
            if waiting:
                yield waiting[0], jax.device_get(waiting[1])
            waiting = chosen, embeddings
        if waiting:
            yield waiting[0], jax.device_get(waiting[1])

    def _batches(self, rows: list[list[int]]) -> Iterator[tuple[np.ndarray, jax.Array]]:
        devices = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        sharding = batch_sharding(self.mesh)

        def full(length: int) -> int:
            return devices * (self._batch_rows or max(1, self._batch_tokens // length))

        for length, chosen in longest_first([len(row) for row in rows], full):
            size = filled_rows(len(chosen), full(length), devices)
            ids = padded([rows[i] for i in chosen], length)
            ids = np.concatenate([ids, np.repeat(ids[:1], size - len(ids), axis=0)])
            self._note(ids.shape)
            yield chosen, jax.device_put(ids, sharding)

    def _note(self, shape: tuple[int, int]) -> None:
        if shape not in self.shapes:
            self.shapes.add(shape)
            logger.info("compiling for %d texts of %d tokens, shape number %d", *shape, len(self.shapes))


def _no_vectors(config: RetrieverConfig) -> Vectors:
    """The vectors of no text at all."""

    def ragged(dtype: Any, *width: int) -> Ragged:
        return Ragged(np.zeros((0, *width), dtype), np.zeros(1, np.int64))

    lexical = "lexical" in config.heads
    return Vectors(
        dense=np.zeros((0, config.dense_width), np.float32) if "dense" in config.heads else None,
        tokens=ragged(np.float32, config.token_width) if "multi_vector" in config.heads else None,
        term_ids=ragged(np.int32) if lexical else None,
        term_weights=ragged(np.float32) if lexical else None,
    )


def _one_text(embeddings: Embeddings, row: int) -> tuple:
    """Dense vector, kept token vectors, terms and weights of one row."""
    dense = None if embeddings.dense is None else embeddings.dense[row].astype(np.float32)
    tokens = None
    if embeddings.tokens is not None and embeddings.mask is not None:
        tokens = embeddings.tokens[row][embeddings.mask[row]].astype(np.float32)
    if embeddings.lexical is None:
        return dense, tokens, None, None
    weights = np.asarray(embeddings.lexical.weights[row], np.float32)
    kept = weights > 0
    if embeddings.lexical.ids is None:
        return dense, tokens, np.flatnonzero(kept).astype(np.int32), weights[kept]
    terms, inverse = np.unique(embeddings.lexical.ids[row][kept], return_inverse=True)
    best = np.zeros(len(terms), np.float32)
    np.maximum.at(best, inverse, weights[kept])
    return dense, tokens, terms.astype(np.int32), best
