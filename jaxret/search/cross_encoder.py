"""Scores of pairs by a cross-encoder: length-bucketed batches over the whole mesh, in the order of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from jaxret.data.pairs import padded_types, pair_rows
from jaxret.data.text import padded
from jaxret.errors import InputError
from jaxret.nn.cross_encoder import OUTPUTS
from jaxret.runtime.cross_encoder import CrossEncoderModel
from jaxret.runtime.layouts.cross_encoders import load_cross_encoder, save_cross_encoder
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.precision import cast, compute_dtype
from jaxret.search.batches import BatchedModel
from jaxret.search.embedder import shown_progress

Scores = Float32[np.ndarray, " n"]
Progress = Callable[[int], None]


class CrossEncoder:
    """A cross-encoder, its parameters on a mesh, and what users do with them. Made by `from_pretrained`.

    Args:
      model: what it is.
      params: its parameters, placed on the mesh.
      mesh: the devices.
    """

    def __init__(self, model: CrossEncoderModel, params: Any, mesh: Mesh):
        self.model, self.params, self.mesh = model, params, mesh
        self._batched = BatchedModel(model, cast(params, compute_dtype(model.precision)), mesh)

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """`[rows length]` of the batches compiled so far; see `BatchedModel`."""
        return self._batched.shapes

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        mesh_shape: Sequence[int] = (-1, 1, 1),
        precision: str = "auto",
        attention: str = "auto",
        step: int | None = None,
        **settings: Any,
    ) -> CrossEncoder:
        """Loads a sequence classifier of transformers with one label, or a workdir of ours.

        Args:
          path: a folder, or "hf:org/name" for the Hugging Face hub.
          mesh_shape: sizes of `data, fsdp, tensor`; one may be -1.
          precision: of the products, "auto", "float32" or "bfloat16".
          attention: "auto", "plain", "xla", "cudnn" or "splash".
          step: of a workdir; the latest by default.
          **settings: other values for fields of PairConfig, or for `activation_fn`.

        Raises:
          InputError: no such folder or model, no cross-encoder, or tensors that do not fit.
        """
        mesh = device_mesh(mesh_shape)
        choices = {"precision": precision, "attention": attention, **settings}
        return cls(*load_cross_encoder(path, mesh, step=step, **choices), mesh)

    def predict(
        self,
        pairs: Sequence[Sequence[str]],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        activation_fn: str | None = None,
    ) -> Scores:
        """The score of each (query, passage), in the order given.

        Args:
          pairs: two texts each.
          batch_size: most pairs of a batch on one device; by default as many as a fixed number of tokens allows.
          show_progress_bar: show one.
          activation_fn: "sigmoid" or "identity"; the model's own by default.

        Raises:
          InputError: something that is no pair of texts, with its number.
        """
        activation = self.model.config.activation_fn if activation_fn is None else activation_fn
        if activation not in OUTPUTS:
            raise InputError("activation_fn", f"unknown {activation!r}", f"Choose one of {', '.join(OUTPUTS)}.")
        if batch_size is not None and batch_size < 1:
            raise InputError("batch_size", f"{batch_size} is not a number of pairs", "Give 1 or more.")
        for number, pair in enumerate(pairs):
            if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise InputError(f"pair {number}", f"{pair!r} is no pair of strings"[:100], "Give (query, passage).")
        with shown_progress(show_progress_bar, "pairs", len(pairs)) as advance:
            scores = self.logits([pair[0] for pair in pairs], [pair[1] for pair in pairs], batch_size, advance)
        return scores if activation == "identity" else np.exp(-np.logaddexp(np.float32(0), -scores))

    def rank(
        self, query: str, documents: Sequence[str], top_k: int | None = None, **settings: Any
    ) -> list[dict[str, int | float]]:
        """The documents by their scores, best first, as `{"corpus_id": place, "score": score}`.

        Args:
          query: the query.
          documents: their texts.
          top_k: how many; all by default.
          settings: see `predict`.
        """
        scores = self.predict([(query, document) for document in documents], **settings)
        order = np.argsort(-scores, kind="stable")[:top_k].tolist()
        return [{"corpus_id": place, "score": float(scores[place])} for place in order]

    def logits(
        self,
        queries: Sequence[str],
        passages: Sequence[str],
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """The scores before `activation_fn` of each query with the passage at its place.

        `progress` hears how many more pairs are done.
        """
        rows = pair_rows(self.model.tokenizer, self.model.text, queries, passages)
        scores = np.zeros(len(rows), np.float32)

        def arrays(chosen: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
            members = [rows[i] for i in chosen]
            return padded([row.ids for row in members], length), padded_types(members, length)

        for chosen, found in self._batched.run([len(row.ids) for row in rows], arrays, batch_size):
            scores[chosen] = found[: len(chosen)]
            if progress:
                progress(len(chosen))
        return scores

    def save_pretrained(self, path: str | Path, layout: str = "auto", dtype: Any = None) -> Path:
        """Writes a checkpoint, by default in the layout that it was loaded from; see `save_cross_encoder`."""
        return save_cross_encoder(path, self.model, self.params, layout, dtype)
