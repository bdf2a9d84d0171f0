"""Texts to vectors: length-bucketed batches over the whole mesh, in the order of the input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxret.data.text import padded, passage_ids, query_ids
from jaxret.nn.retriever import Embeddings, RetrieverConfig, Side
from jaxret.runtime.mesh import batch_sharding
from jaxret.runtime.model import Model
from jaxret.search.lengths import by_bucket
from jaxret.search.vectors import Ragged, Vectors

BATCH_TOKENS = 8192


class TextEncoder:
    """A model and its parameters on a mesh, compiled once for each length bucket.

    Args:
      model: what the model is.
      params: its parameters, placed on the mesh.
      mesh: the devices; a batch is split over `data` and `fsdp`.
      batch_tokens: tokens of a batch on one device, padding included.
    """

    def __init__(self, model: Model, params: Any, mesh: Mesh, batch_tokens: int = BATCH_TOKENS):
        self.model, self.mesh, self.params, self._batch_tokens = model, mesh, params, batch_tokens
        self._apply = jax.jit(model.apply, static_argnums=2)

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
        devices = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        sharding = batch_sharding(self.mesh)
        for length, members in by_bucket([len(row) for row in rows]):
            size = _batch_rows(len(members), max(1, self._batch_tokens // length), devices)
            for start in range(0, len(members), size):
                chosen = members[start : start + size]
                ids = padded([rows[i] for i in chosen], length)
                # A short last batch is filled up, so that each bucket has one shape.
                ids = np.concatenate([ids, np.repeat(ids[:1], size - len(ids), axis=0)])
                yield chosen, jax.device_get(self._apply(self.params, jax.device_put(ids, sharding), side))


def _batch_rows(texts: int, most: int, devices: int) -> int:
    """Rows of a batch: `most` a device, or for few texts the power of two that holds them."""
    needed = -(-texts // devices)
    return min(most, 1 << (needed - 1).bit_length()) * devices


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
    tokens = None if embeddings.tokens is None else embeddings.tokens[row][embeddings.mask[row]].astype(np.float32)
    if embeddings.lexical is None:
        return dense, tokens, None, None
    weights = np.asarray(embeddings.lexical[row], np.float32)
    kept = weights > 0
    terms, inverse = np.unique(embeddings.token_ids[row][kept], return_inverse=True)
    best = np.zeros(len(terms), np.float32)
    np.maximum.at(best, inverse, weights[kept])
    return dense, tokens, terms.astype(np.int32), best
