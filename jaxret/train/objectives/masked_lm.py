"""Masked language modelling (BERT, Devlin et al. 2019)."""

from __future__ import annotations

from typing import Any

import jax

from jaxret.nn.heads import LMHeadConfig
from jaxret.runtime.model import Model
from jaxret.train.objective import Objective
from jaxret.train.objectives.predicted import chosen, fresh_head, predicted, reader, states
from jaxret.train.objectives.represented import Batch

HEAD = LMHeadConfig()


def masked_language_modeling(*, head: LMHeadConfig = HEAD, most: int | None = None) -> Objective:
    """The mean over masked tokens of `-log` of the share that the language model's head gives to them.

    The batch has `tokens` [b l] as they were, `masked` [b l] as the encoder sees them, and `where` [b l], not 0 where a
    token is predicted; ids below 0 are padding. `segments` [b l], if there are any, number the texts in each row.

    Args:
      head: the objective's own, for a model without SPLADE's.
      most: predict no more than the first so many of each row's masked tokens, which saves time and memory.
    """

    def init(model: Model, params: Any, key: jax.Array) -> tuple[Any, Any]:
        return fresh_head(model, head, key), {}

    def loss(model: Model, params: Any, state: Any, batch: Batch, rng: jax.Array) -> Any:
        x = states(model, params, batch["masked"], rng, batch.get("segments"))
        where = (batch["where"] != 0) & (batch["tokens"] >= 0)
        where, (x, tokens) = chosen(where, most, x, batch["tokens"])
        value, accuracy = predicted(reader(model, params, head), x, tokens, where)
        return value, (state, {"accuracy": accuracy})

    return Objective(loss, init)
