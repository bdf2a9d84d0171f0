"""Which passage token each query token chose: MaxSim taken apart, for one query and one passage."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxret.data.text import expansion_id, passage_ids, passage_spans, query_ids
from jaxret.errors import InputError
from jaxret.nn.retriever import RetrieverConfig, Side, token_mask
from jaxret.runtime.model import Model
from jaxret.search.encode import TextEncoder


@dataclass(frozen=True, eq=False)
class Alignment:
    """The token scores of a query and a passage.

    Attributes:
      query_pieces: the query's s pieces that take part, markers and [MASK] expansion included.
      passage_pieces: the t pieces of the passage that take part in MaxSim: without the skip-list.
      passage_spans: [begin, end) characters of each in the passage; empty for a marker.
      passage_read: how many characters of the passage the model read before `passage_max_len` cut it off.
      scores: dot products of the token vectors.
      expansion: which of the query's pieces are [MASK] tokens that the query was filled up with.
      special: which stand for no text: [CLS], the marker, [SEP], [MASK].
    """

    query_pieces: list[str]
    passage_pieces: list[str]
    passage_spans: list[tuple[int, int]]
    passage_read: int
    scores: Float[np.ndarray, "s t"]
    expansion: Bool[np.ndarray, " s"]
    special: Bool[np.ndarray, " s"]

    @property
    def chosen(self) -> Int[np.ndarray, " s"]:
        """The position of each query token's best passage token, the first of equals."""
        return self.scores.argmax(axis=1)

    @property
    def best(self) -> Float[np.ndarray, " s"]:
        """The score of each query token's choice."""
        return self.scores.max(axis=1)

    @property
    def maxsim(self) -> float:
        """The score of the pair: the sum of `best`."""
        return float(self.best.sum())


def alignment(encoder: TextEncoder, query: str, passage: str) -> Alignment:
    """Aligns a query with a passage (title and text already joined) token by token.

    Raises:
      InputError: the model has no multi-vector head.
    """
    model = encoder.model
    q, d = encoder.queries([query]).tokens, encoder.passages([passage]).tokens
    if q is None or d is None:
        heads = ", ".join(model.config.heads)
        raise InputError(
            "model", f"has no multi_vector head, only {heads}", "Train one with it (RetrieverConfig.heads)."
        )
    q_ids = query_ids(model.tokenizer, model.text, [query])[0]
    d_ids = passage_ids(model.tokenizer, model.text, [passage])[0]
    asked, kept = (_places(model.config, *row) for row in ((q_ids, "query"), (d_ids, "passage")))
    unexpanded = query_ids(model.tokenizer, dataclasses.replace(model.text, query_expansion=False), [query])[0]
    spans = passage_spans(model.tokenizer, model.text, passage)
    return Alignment(
        query_pieces=model.tokenizer.pieces([q_ids[place] for place in asked]),
        passage_pieces=model.tokenizer.pieces([d_ids[place] for place in kept]),
        passage_spans=[spans[place] for place in kept],
        passage_read=max(end for _, end in spans),
        scores=q.values @ d.values.T,
        expansion=np.array(asked) >= len(unexpanded),
        special=np.isin([q_ids[place] for place in asked], _special_ids(model)),
    )


def _places(config: RetrieverConfig, ids: Sequence[int], side: Side) -> list[int]:
    """The places of the ids that take part in MaxSim."""
    return np.flatnonzero(token_mask(config, jnp.asarray([ids], jnp.int32), side)[0]).tolist()


def _special_ids(model: Model) -> list[int]:
    marker = model.tokenizer.token_id(model.text.query_marker) if model.text.query_marker else None
    filler = [expansion_id(model.tokenizer, model.text)] if model.text.query_expansion else []
    return [*model.tokenizer.special_ids, *filler, *([] if marker is None else [marker])]
