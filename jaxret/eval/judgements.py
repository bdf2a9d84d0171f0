"""Relevance judgements as arrays over a run's document table; built once, used for many runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxret.errors import InputError

Qrels = Mapping[str, Mapping[str, int | float]]


@dataclass(frozen=True, eq=False)
class Judgements:
    """The judged queries and their relevant documents.

    A query counts as judged if it has any judgement, be it 0, as in trec_eval and ir_measures. A grade below 1 says the
    same as no judgement, so that only relevant documents are kept here.

    Attributes:
      query_ids: the judged queries, in the order of the qrels.
      documents: the id table of the runs to be measured.
      rows: int64 [n], positions in `query_ids`, ascending; within a row the higher grades come first.
      indices: int64 [n], positions in `documents`, -1 for an id that the table lacks.
      grades: int64 [n], at least 1.
    """

    query_ids: list[str]
    documents: Sequence[str]
    rows: np.ndarray
    indices: np.ndarray
    grades: np.ndarray

    @classmethod
    def of(cls, qrels: Qrels, documents: Sequence[str]) -> Judgements:
        """The judgements of `{query id: {document id: grade}}`. Raises InputError for a grade that is not whole."""
        query_ids = [query for query, grades in qrels.items() if grades]
        grades = np.array([grade for row in qrels.values() for grade in row.values()])
        if (grades != np.floor(grades)).any():
            raise InputError("qrels", f"grade {grades[grades != np.floor(grades)][0]}", "Give whole numbers.")
        judged = {document for row in qrels.values() for document in row}
        index_of = positions(documents, judged)
        indices = np.array([index_of.get(document, -1) for row in qrels.values() for document in row], np.int64)
        rows = np.repeat(np.arange(len(query_ids)), [len(qrels[query]) for query in query_ids])
        order = np.lexsort((-grades.astype(np.int64), rows))
        order = order[grades[order] > 0]
        return cls(query_ids, documents, rows[order], indices[order], grades[order].astype(np.int64))


def positions(documents: Sequence[str], wanted: set[str]) -> dict[str, int]:
    """Where each of the wanted ids stands in the table; ids that it lacks are left out."""
    return {document: index for index, document in enumerate(documents) if document in wanted}
