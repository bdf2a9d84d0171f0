"""Answers to a question from an index: documents, scores and the words that match."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from jaxret.errors import InputError
from jaxret.ops.topk import EMPTY
from jaxret.runtime.manifest import machine
from jaxret.search.analyzers import matched_spans
from jaxret.search.blocks import MODES as EXACT
from jaxret.search.corpus import check_identity, model_fingerprint, open_store
from jaxret.search.documents import Document
from jaxret.search.encode import TextEncoder
from jaxret.search.exact import ExactSearch
from jaxret.search.index import AGAIN, Index, Progress, source
from jaxret.search.pairs import query_divisors
from jaxret.search.plaid.index import PlaidIndex
from jaxret.search.plaid.search import PlaidSearch
from jaxret.search.plaid.stages import published_pruning
from jaxret.search.runs import Run
from jaxret.search.store import MANIFEST, StoredVectors
from jaxret.search.top_k import NOTHING
from jaxret.search.vectors import Vectors, check_finite

MODES = (*EXACT, "plaid", "bm25")

Advance = Callable[[int], None] | None


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
      mode: "dense", "lexical", "multi_vector", "plaid" (compressed) or "bm25".
      k: results a question.
      memory_budget_gb: see `ExactSearch` and `PlaidSearch`.
      share: see `ExactSearch`; of several processes each makes the same calls.
      pruning: settings of plaid's `Pruning` that take the place of the published ones.

    Attributes:
      facts: what a manifest says of the system.
    """

    def __init__(
        self,
        index: Index,
        encoder: TextEncoder | None,
        mode: str,
        k: int,
        memory_budget_gb: float | None = None,
        share: tuple[int, int] = (0, 1),
        pruning: Mapping[str, Any] | None = None,
    ):
        if mode not in MODES:
            raise InputError("--mode", f"unknown {mode!r}", f"Choose one of {', '.join(MODES)}.")
        if share[1] > 1 and mode not in EXACT:
            fix = f"Leave the option out, or choose one of {', '.join(EXACT)}."
            raise InputError("--distributed", f"{mode} is searched by one process", fix)
        if not 1 <= k <= len(index.documents):
            problem = f"{k} results of a corpus of {len(index.documents)} documents"
            raise InputError("--k", problem, f"Give 1 to {len(index.documents)}.")
        self._mode, self._documents, self._analyzer = mode, index.documents, index.bm25.analyzer
        if mode == "bm25" or encoder is None:
            self._stored = StoredVectors(index.vectors)
        else:
            self._stored = open_store(index.vectors, encoder)
        wanted = {"corpus": index.description.corpus, "documents": len(index.documents)}
        check_identity(f"{self._stored.place}/{MANIFEST}", self._stored.manifest, wanted)
        self.facts: dict[str, Any] = {"system": mode}
        self._ranked: Callable[[Sequence[str], list[str], Advance], tuple[np.ndarray, np.ndarray]]
        if mode == "bm25":
            self.facts["bm25"] = asdict(index.bm25.settings)
            self._ranked = lambda _, questions, advance: index.bm25.top_k(questions, k, advance)
        elif encoder is None:
            raise InputError("--mode", f"{mode} needs the model that made the index", "Give its encoder, or use bm25.")
        else:
            config = encoder.model.config
            self.facts |= {"model": model_fingerprint(encoder), "text": encoder.model.text.to_dict()}
            self.facts |= {"maxsim": config.maxsim, **machine(encoder.mesh)}
            search = self._searcher(index, encoder, mode, k, memory_budget_gb, share, pruning or {})
            rule = "multi_vector" if mode == "plaid" else mode

            def ranked(ids: Sequence[str], questions: list[str], advance: Advance) -> tuple[np.ndarray, np.ndarray]:
                queries = encoder.queries(questions)
                check_finite(queries, "query", ids)
                scores, positions = search(queries, advance)
                empty = positions == EMPTY
                scores = np.where(empty, 0, scores) / query_divisors(queries, rule, config.maxsim)[:, None]
                return scores, np.where(empty, NOTHING, positions)

            self._ranked = ranked

    def _searcher(
        self,
        index: Index,
        encoder: TextEncoder,
        mode: str,
        k: int,
        budget: float | None,
        share: tuple[int, int],
        pruning: Mapping[str, Any],
    ) -> Callable[[Vectors, Advance], tuple[np.ndarray, np.ndarray]]:
        """Scores and positions of query vectors."""
        if mode == "plaid":
            compressed = self._compressed(index)
            search = PlaidSearch(compressed, encoder.mesh, k, replace(published_pruning(k), **pruning), budget)
            self.facts["plaid"] = {**compressed.facts.get("settings", {}), "pruning": asdict(search.pruning)}
            return search
        vocabulary = encoder.model.config.encoder.vocab_size
        return ExactSearch(mode, self._stored, encoder.mesh, k, vocabulary, memory_budget_gb=budget, share=share)

    def _compressed(self, index: Index) -> PlaidIndex:
        """The compressed vectors; InputError where they are not of the vectors beside them, as far as they say."""
        compressed = PlaidIndex.load(index.plaid)
        if len(compressed) != len(index.documents):
            problem = f"holds {len(compressed)} documents, and the index {len(index.documents)}"
            raise InputError(index.plaid, problem, AGAIN)
        if compressed.facts.get("source", "") not in ("", source(self._stored)):
            problem = "is of another model or corpus than the vectors beside it"
            raise InputError(index.plaid, problem, f"{AGAIN} Give it --nbits.")
        return compressed

    def run(self, ids: Sequence[str], texts: Sequence[str], progress: Progress | None = None) -> Run:
        """The best documents of each query, all queries at once; scores by the model's own rule.

        Args:
          ids, texts: the queries.
          progress: of the documents that are scored; of the queries that are answered, if the mode is "plaid".
        """
        total = len(texts) if self._mode == "plaid" else len(self._documents)
        with progress(f"search by {self._mode}", total) if progress else nullcontext() as advance:
            scores, positions = self._ranked(ids, list(texts), advance)
        filled = positions != NOTHING
        found, places = np.unique(positions[filled], return_inverse=True)
        rows = np.full(positions.shape, NOTHING, np.int64)
        rows[filled] = places
        return Run.from_top_k(ids, self._stored.ids_at(found), rows, scores)

    def __call__(self, question: str) -> list[Hit]:
        """The best documents, best first."""
        if not question.strip():
            raise InputError("question", "is empty", "Type some words.")
        scores, positions = self._ranked([question], [question], None)
        ranked = zip(positions[0].tolist(), scores[0].tolist(), strict=True)
        return [self._hit(question, position, score) for position, score in ranked if position >= 0]

    def _hit(self, question: str, position: int, score: float) -> Hit:
        document = self._documents[position]
        return Hit(document, score, matched_spans(self._analyzer, question, document.text))
