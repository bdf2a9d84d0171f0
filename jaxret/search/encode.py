"""Texts to vectors: length-bucketed batches over the whole mesh, in the order of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxret.data.text import padded, passage_ids, query_ids
from jaxret.nn.retriever import Embeddings, RetrieverConfig, Side
from jaxret.runtime.model import Model
from jaxret.runtime.precision import cast, compute_dtype
from jaxret.search.batches import BatchedModel
from jaxret.search.vectors import Ragged, Vectors

Progress = Callable[[int], None] | None


class TextEncoder:
    """A model and its parameters on a mesh, compiled once for each shape of a batch.

    Args:
      model: what the model is.
      params: its parameters, placed on the mesh; they are kept in the compute dtype.
      mesh: the devices; a batch is split over `data` and `fsdp`.
      batch_tokens: tokens of a batch on one device, padding included; by default what suits the platform.
      programs: see `BatchedModel`.
    """

    def __init__(
        self,
        model: Model,
        params: Any,
        mesh: Mesh,
        batch_tokens: int | None = None,
        programs: dict[Any, Any] | None = None,
    ):
        self.model, self.mesh = model, mesh
        self.params = cast(params, compute_dtype(model.precision))
        self._batched = BatchedModel(model.apply, self.params, mesh, batch_tokens, programs)

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """`[rows length]` of the batches compiled so far; see `BatchedModel`."""
        return self._batched.shapes

    def queries(self, texts: Sequence[str], progress: Progress = None, batch_rows: int | None = None) -> Vectors:
        """Vectors of queries.

        Args:
          texts: the queries.
          progress: hears how many more texts are done.
          batch_rows: texts of a batch on one device, instead of its tokens.
        """
        return self._vectors(query_ids(self.model.tokenizer, self.model.text, texts), "query", progress, batch_rows)

    def passages(self, texts: Sequence[str], progress: Progress = None, batch_rows: int | None = None) -> Vectors:
        """Vectors of passages (title and text already joined); arguments as `queries`."""
        return self._vectors(passage_ids(self.model.tokenizer, self.model.text, texts), "passage", progress, batch_rows)

    def _vectors(self, rows: list[list[int]], side: Side, progress: Progress, batch_rows: int | None) -> Vectors:
        if not rows:
            return _no_vectors(self.model.config)
        parts: list[Any] = [None] * len(rows)

        def arrays(chosen: np.ndarray, length: int) -> tuple[np.ndarray]:
            return (padded([rows[i] for i in chosen], length),)

        for chosen, embeddings in self._batched.run(list(map(len, rows)), arrays, batch_rows, side=side):
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
    kept = ~(weights <= 0)  # NaN too, so that it is found
    if embeddings.lexical.ids is None:
        return dense, tokens, np.flatnonzero(kept).astype(np.int32), weights[kept]
    terms, inverse = np.unique(embeddings.lexical.ids[row][kept], return_inverse=True)
    best = np.zeros(len(terms), np.float32)
    with np.errstate(invalid="ignore"):
        np.maximum.at(best, inverse, weights[kept])
    return dense, tokens, terms.astype(np.int32), best
