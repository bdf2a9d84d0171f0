"""Retrieval evaluation of parameters in memory, for a run that trains them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxret.data.beir import BeirFolder
from jaxret.errors import InputError
from jaxret.eval.judgements import Qrels
from jaxret.eval.measures import parse_measure
from jaxret.eval.metrics import mean_scores
from jaxret.eval.systems import judged, model_runs
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import Model
from jaxret.search.corpus import encoded_now
from jaxret.search.encode import TextEncoder


@dataclass(frozen=True)
class RetrievalEvaluation:
    """Exact search with a model's heads over a BEIR folder, as `jaxret evaluate` does it, with its numbers.

    Attributes:
      folder: the BEIR folder.
      split: which qrels.
      heads: of "dense", "lexical", "multi_vector"; all that the model has by default.
      measures: such as "ndcg@10", see `eval.measures`.
      queries: judge by so many of the split's queries, always the same ones; None for all.
      seed: chooses them.
      k: results a query, or as many as there are documents.
    """

    folder: str
    split: str = "dev"
    heads: Sequence[str] = ()
    measures: Sequence[str] = ("ndcg@10",)
    queries: int | None = None
    seed: int = 0
    k: int = 100

    def check(self, model: Any) -> list[str]:
        """The names of the metrics, after reading the folder.

        Raises:
          InputError: no such folder, split, head or measure, or a number that is none.
        """
        if not isinstance(model, Model):
            raise InputError("RetrievalEvaluation", "the model is no retriever", "Evaluate a retriever.")
        for head in self.heads:
            if head not in model.config.heads:
                place, problem = "RetrievalEvaluation.heads", f"the model has no {head!r}"
                raise InputError(place, problem, f"Choose from {', '.join(model.config.heads)}.")
        for name, value in (("k", self.k), ("queries", self.queries)):
            if value is not None and value < 1:
                raise InputError(f"RetrievalEvaluation.{name}", f"{value} is no number of them", "Give 1 or more.")
        if not self.measures:
            raise InputError("RetrievalEvaluation.measures", "none", 'Give at least one, such as "ndcg@10".')
        measures = [parse_measure(measure) for measure in self.measures]
        if not self._judged[0]:
            problem = f"split {self.split!r} judges no query"
            raise InputError(self.folder, problem, "Choose another split, or add judgements.")
        return [f"{head}_{measure.key}" for head in self.heads or model.config.heads for measure in measures]

    def __call__(self, model: Model, params: Any) -> dict[str, float]:
        """`{<head>_<measure>: mean}`, for example `dense_ndcg_at_10`.

        Texts are encoded by parameters that lie on a mesh as they lie there, over all its devices: each of several
        processes makes this call. Each then searches by itself, on its own devices.
        """
        (ids, texts, qrels), corpus = self._judged, self._folder.corpus
        model, (params, mesh) = model.for_search(), _on_mesh(params)
        encoder = TextEncoder(model, params, mesh, programs=self._programs.setdefault((model, mesh), {}))
        heads, k = self.heads or model.config.heads, min(self.k, len(corpus))
        runs = model_runs(encoder, encoded_now(encoder, corpus), ids, texts, heads, k)
        return {
            f"{head}_{key}": value
            for head, run in runs.items()
            for key, value in mean_scores(run, qrels, self.measures).items()
        }

    @cached_property
    def _programs(self) -> dict[Any, dict[Any, Any]]:
        """What is compiled serves all evaluations of a run."""
        return {}

    @cached_property
    def _folder(self) -> BeirFolder:
        return BeirFolder(self.folder)

    @cached_property
    def _judged(self) -> tuple[list[str], list[str], Qrels]:
        """Ids, texts and judgements of the queries."""
        qrels = self._folder.qrels(self.split)
        ids, texts = judged(self._folder, self.split)
        if self.queries is not None and self.queries < len(ids):
            chosen = np.sort(np.random.default_rng(self.seed).choice(len(ids), self.queries, replace=False)).tolist()
            ids, texts = [ids[row] for row in chosen], [texts[row] for row in chosen]
            qrels = {query: qrels[query] for query in ids}
        return ids, texts, qrels


def _on_mesh(params: Any) -> tuple[Any, Mesh]:
    """Parameters on their mesh, or whole on each of this process's devices where they have none; and the mesh."""
    shardings = [x.sharding for x in jax.tree.leaves(params) if isinstance(x.sharding, NamedSharding)]
    meshes = [sharding.mesh for sharding in shardings if isinstance(sharding.mesh, Mesh)]
    if meshes:
        return params, meshes[0]
    mesh = device_mesh(devices=jax.local_devices())
    return jax.device_put(params, NamedSharding(mesh, PartitionSpec())), mesh
