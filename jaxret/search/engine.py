"""Answers to a question from an index: documents, scores and the words that match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxret.errors import InputError
from jaxret.search.analyzers import analyzer, matched_spans
from jaxret.search.corpus import open_store
from jaxret.search.encode import TextEncoder
from jaxret.search.exact import SCORES, ExactSearch
from jaxret.search.index import Document, Index

MODES = (*SCORES, "bm25")


@dataclass(frozen=True)
class Hit:
    """One result. Spans are [begin, end) characters of the document's text that match the question."""

    document: Document
    score: float
    spans: list[tuple[int, int]]


class Engine:
    """An index opened for questions, in one mode.

    Args:
      index: the index.
      encoder: the model that made it; None for BM25.
      mode: "dense", "lexical", "multi_vector" or "bm25".
      k: results a question.
    """

    def __init__(self, index: Index, encoder: TextEncoder | None, mode: str, k: int):
        if mode not in MODES:
            raise InputError("--mode", f"unknown {mode!r}", f"Choose one of {', '.join(MODES)}.")
        if not 1 <= k <= len(index.documents):
            problem = f"{k} results of a corpus of {len(index.documents)} documents"
            raise InputError("--k", problem, f"Give 1 to {len(index.documents)}.")
        self._index, self._encoder, self._k = index, encoder, k
        self._analyzer = analyzer(index.language)
        self._search = None
        if mode != "bm25":
            _, vectors = open_store(index.vectors, encoder)
            self._search = ExactSearch(mode, vectors, encoder.mesh, k, encoder.model.config.encoder.vocab_size)

    def __call__(self, question: str) -> list[Hit]:
        """The best documents, best first."""
        if not question.strip():
            raise InputError("question", "is empty", "Type some words.")
        scores, positions = self._ranked([question])
        return [
            self._hit(question, p, s) for p, s in zip(positions[0].tolist(), scores[0].tolist(), strict=True) if p >= 0
        ]

    def _ranked(self, questions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if self._search is None:
            return self._index.bm25.top_k(questions, self._k)
        return self._search(self._encoder.queries(questions))

    def _hit(self, question: str, position: int, score: float) -> Hit:
        document = self._index.documents[position]
        return Hit(document, score, matched_spans(self._analyzer, question, document.text))
