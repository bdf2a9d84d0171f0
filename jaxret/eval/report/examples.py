"""Queries that a multi-vector model wins and loses, with the alignments that explain its scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxret.data.beir import BeirFolder
from jaxret.data.text import passage_text
from jaxret.errors import InputError
from jaxret.eval.report.duel import Duel, Outcome
from jaxret.eval.report.heatmap import HeatMap, heat_map
from jaxret.search.alignment import alignment
from jaxret.search.encode import TextEncoder


@dataclass(frozen=True)
class Aligned:
    """A passage under a query: its rank for the system (None: not found), whether it is relevant, its heat map."""

    document: str
    title: str
    relevant: bool
    heat_map: HeatMap


@dataclass(frozen=True)
class Example:
    """One query; for a loss also the passage that the system put first instead."""

    outcome: Outcome
    query: str
    passages: list[Aligned]


def examples(fought: Duel, data: BeirFolder, split: str, encoder: TextEncoder, count: int) -> list[Example]:
    """The `count` biggest wins and losses of a duel, aligned."""
    chosen = fought.wins[:count] + fought.losses[:count]
    return [_example(outcome, data, split, encoder) for outcome in chosen]


def _example(outcome: Outcome, data: BeirFolder, split: str, encoder: TextEncoder) -> Example:
    query = data.queries.texts[data.queries.row_of[outcome.query_id]]
    documents = dict.fromkeys([outcome.document] if outcome.gain > 0 else [outcome.first, outcome.document])
    shown = [document for document in documents if document is not None]
    rows = [_row(data, document) for document in shown]
    separator = encoder.model.text.title_separator
    texts = [passage_text(data.corpus.titles[row], data.corpus.texts[row], separator) for row in rows]
    alignments = [alignment(encoder, query, text) for text in texts]
    # One scale for all passages of a query, so that shades compare; what is below the mean says nothing.
    scores = np.concatenate([a.scores.ravel() for a in alignments])
    bounds = float(scores.mean()), float(scores.max())
    grades = data.qrels(split)[outcome.query_id]
    passages = [
        Aligned(document, data.corpus.titles[row], grades.get(document, 0) > 0, heat_map(a, text, bounds))
        for document, row, text, a in zip(shown, rows, texts, alignments, strict=True)
    ]
    return Example(outcome, query, passages)


def _row(data: BeirFolder, document: str) -> int:
    row = data.corpus.row_of.get(document)
    if row is None:
        raise InputError(
            data.path, f"no document {document!r}, which a run holds", "Give the --data of the evaluation."
        )
    return row
