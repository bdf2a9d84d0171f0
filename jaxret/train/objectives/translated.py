"""A student that gives a sentence and its translation the vector that a teacher gives the sentence."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxret.errors import InputError
from jaxret.ops.distillation import embedding_mse
from jaxret.runtime.layouts import describe
from jaxret.runtime.model import Model
from jaxret.train.objective import Objective
from jaxret.train.objectives import frozen
from jaxret.train.objectives.represented import Batch, represented


def translated(*, teacher: str) -> Objective:
    """Multilingual knowledge distillation (Reimers and Gurevych 2020, eq. 1), of dense vectors.

    The batch has the sentences as `query` [b s] and their translations as the first of each row of `passage` [b n t];
    the teacher, which stands in the state, reads the sentences with the student's tokeniser.

    Args:
      teacher: a retriever with dense vectors as wide as the student's, and the same vocabulary.

    Raises:
      InputError: when training starts, another vocabulary or width.
    """
    description = describe(teacher)
    guide = description.model.for_search()

    def init(model: Model, params: Any, key: jax.Array) -> tuple[Any, Any]:
        frozen.check_same_vocabulary("translated.teacher", guide, model)
        widths = [x.config.dense_width if "dense" in x.config.heads else 0 for x in (guide, model)]
        if 0 in widths or widths[0] != widths[1]:
            problem = f"its dense vectors have {widths[0]} numbers, the model's {widths[1]}"
            raise InputError("translated.teacher", problem, "Give the model a projection as wide as the teacher.")
        return {}, {"teacher": frozen.parameters(guide)}

    def load(state: Any) -> Any:
        return state | {"teacher": frozen.loaded(description, state["teacher"])}

    def loss(model: Model, params: Any, state: Any, batch: Batch, rng: jax.Array) -> Any:
        first = {name: x[:, :1] if name == "passage" else x for name, x in batch.items()}
        mine: Any = represented(model, params, first, rng)
        teacher = frozen.in_chunks_of(model, guide)
        target: Any = teacher(frozen.still(state["teacher"]), batch["query"], "query").dense
        metrics = {
            "mse_sentence": jnp.mean(embedding_mse(mine.query.dense, target)),
            "mse_translation": jnp.mean(embedding_mse(mine.passage.dense, target)),
        }
        return metrics["mse_sentence"] + metrics["mse_translation"], (state, metrics)

    return Objective(loss, init, load)
