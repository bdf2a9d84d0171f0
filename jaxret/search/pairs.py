"""Scores of single pairs of a query and a passage: the place where any teacher is plugged in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from jaxret.errors import InputError
from jaxret.search.fusion import weighted
from jaxret.search.runs import Run
from jaxret.search.vectors import Vectors


class Pair(NamedTuple):
    """A query and a passage; an id is "" where a file has texts only."""

    query_id: str
    query: str
    document_id: str
    title: str
    text: str


Scores = Float32[np.ndarray, " n"]
Scorer = Callable[[Sequence[Pair]], Scores]  # one score a pair, NaN where it has none

# Of the best products of each query token. A pair alone has no padding, so the rules of `ops.maxsim` are but two.
TOKEN_RULES: dict[str, Callable] = {"exact": np.sum, "colbert": np.sum, "pylate": np.sum, "bge_m3": np.mean}


def vector_scores(
    queries: Vectors, passages: Vectors, rows: Sequence[tuple[int, int]], mode: str, rule: str = "exact"
) -> Scores:
    """The score of each (query row, passage row), as `Embedder.similarity` has it for the two alone.

    Args:
      queries, passages: their vectors, made by a model "for search".
      rows: n pairs of rows.
      mode: "dense", "lexical" or "multi_vector".
      rule: of MaxSim, see `ops.maxsim.RULES`.

    Raises:
      InputError: the vectors lack the representation.
    """
    score = {"dense": _dense, "lexical": _lexical, "multi_vector": _multi_vector}[mode]
    return np.array([score(queries, passages, q, d, rule) for q, d in rows], np.float32)


def query_divisors(queries: Vectors, mode: str, rule: str) -> Float32[np.ndarray, " q"]:
    """What an exact search's score is to be divided by for the model's own rule, for each query."""
    if mode == "multi_vector" and TOKEN_RULES[rule] is np.mean:
        return np.maximum(queries.needed("tokens").lengths, 1).astype(np.float32)
    return np.ones(len(queries), np.float32)


def _dense(queries: Vectors, passages: Vectors, q: int, d: int, _: str) -> np.floating:
    return np.dot(queries.needed("dense")[q], passages.needed("dense")[d])


def _lexical(queries: Vectors, passages: Vectors, q: int, d: int, _: str) -> np.floating:
    terms = queries.needed("term_ids").row(q), passages.needed("term_ids").row(d)
    common, mine, theirs = np.intersect1d(*terms, assume_unique=True, return_indices=True)
    if not len(common):
        return np.float32(0)
    return np.dot(queries.needed("term_weights").row(q)[mine], passages.needed("term_weights").row(d)[theirs])


def _multi_vector(queries: Vectors, passages: Vectors, q: int, d: int, rule: str) -> np.floating:
    query, passage = queries.needed("tokens").row(q), passages.needed("tokens").row(d)
    if not len(query) or not len(passage):
        return np.float32(0)
    return TOKEN_RULES[rule]((query @ passage.T).max(axis=1))


def fused_scores(
    columns: Sequence[Scores], groups: np.ndarray, weights: Sequence[float | int], normalization: str
) -> Scores:
    """The weighted sum of several teachers' scores, each normalised among the candidates of a query.

    Args:
      columns: one array a teacher, finite.
      groups: int [n], the number of the candidates' list, from 0.
      weights: one a teacher.
      normalization: "min_max", "z_score" or "none", see `search.fusion.weighted`.

    Raises:
      InputError: another number of weights than of teachers, or an unknown normalisation.
    """
    if len(weights) != len(columns):
        raise InputError("weights", f"{len(weights)} for {len(columns)} teachers", "Give one for each.")
    queries = [str(group) for group in range(int(groups.max(initial=-1)) + 1)]
    names = [str(place) for place in range(len(groups))]
    places = np.arange(len(groups))
    runs = [Run.from_pairs(queries, names, groups, places, column) for column in columns]
    fused = weighted(runs, weights, normalization)
    scores = np.empty(len(groups), np.float32)
    scores[fused.indices] = fused.scores
    return scores
