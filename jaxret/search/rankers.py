"""Systems that rank a corpus for a batch of queries and score single pairs: BM25, a model, a run file.

Each has `top_k(query ids, texts, k) -> Run` and `scores(pairs)`, a `Scorer`. A model's vectors stay on disk unless they
are few.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxret.data.corpus import Corpus
from jaxret.data.text import passage_text
from jaxret.errors import InputError
from jaxret.files import existing, sha256
from jaxret.search.bm25 import BM25
from jaxret.search.budget import GB, resident_bytes
from jaxret.search.corpus import model_fingerprint, open_store, passage_texts, store_ids, store_positions
from jaxret.search.encode import TextEncoder
from jaxret.search.exact import ExactSearch
from jaxret.search.pairs import Pair, Scores, query_divisors, vector_scores
from jaxret.search.run_files import read_run
from jaxret.search.runs import Run
from jaxret.search.vectors import check_finite

PAIRS_AT_ONCE = 2048
PARTS_HELD = 4
MORE_GB = 2.0  # what a model's search may hold besides all else


@runtime_checkable
class Ranker(Protocol):
    """What mining asks of a system."""

    def top_k(self, ids: Sequence[str], texts: Sequence[str], k: int) -> Run:
        """The best k documents of each query, a row a query."""

    def scores(self, pairs: Sequence[Pair]) -> Scores:
        """The score of each pair on the same scale, NaN where the system has none."""

    def facts(self) -> dict[str, Any]:
        """What a manifest says of it."""


class BM25Ranker:
    """BM25 over the title and text of a corpus.

    Args:
      corpus: the documents.
      language, analyzer_name: as `analyzer` takes them.
      folder: where the index is written, and stays but for `PARTS_HELD` parts; None keeps it in memory.
    """

    def __init__(self, corpus: Corpus, language: str, folder: Path | None = None, analyzer_name: str | None = None):
        self._ids, self._position_of, self._corpus = store_ids(corpus), store_positions(corpus), corpus
        texts = passage_texts(corpus, " ")
        if folder is None:
            self._index = BM25.build(texts, language, analyzer_name)
        else:
            BM25.write(folder, texts, language, analyzer_name)
            self._index = BM25.load(folder, PARTS_HELD)

    def top_k(self, ids: Sequence[str], texts: Sequence[str], k: int) -> Run:
        """As `Ranker` has it; a document without a term of the query is no result."""
        scores, positions = self._index.top_k(texts, k)
        return Run.from_top_k(ids, self._ids, positions, scores)

    def scores(self, pairs: Sequence[Pair]) -> Scores:
        """As `Ranker` has it; InputError for a passage that is no document of the corpus."""
        try:
            positions = [self._position_of[pair.document_id] for pair in pairs]
        except KeyError as error:
            problem = f"document {error} is not in the corpus"
            raise InputError("bm25", problem, "Give a file with ids of the corpus, or a model as teacher.") from None
        return self._index.scores([pair.query for pair in pairs], positions)

    def facts(self) -> dict[str, Any]:
        """The formula's settings and the corpus."""
        return {"system": "bm25", **asdict(self._index.settings), "corpus": self._corpus.fingerprint}


class RunRanker:
    """A run file.

    Args:
      path: TREC, three-column or ColBERT ranking.
      missing: the score of a document that a query's row lacks: "none" (NaN), or "lowest" for the row's lowest. A query
        that the run lacks has no scores.
    """

    def __init__(self, path: str | Path, missing: str = "none"):
        if missing not in ("none", "lowest"):
            raise InputError("missing", f"unknown {missing!r}", "Choose one of none, lowest.")
        self._path, self._missing, self._run = existing(path), missing, read_run(path)
        self._row_of = {query: row for row, query in enumerate(self._run.query_ids)}

    def top_k(self, ids: Sequence[str], texts: Sequence[str], k: int) -> Run:
        """As `Ranker` has it; empty rows for queries that the run lacks."""
        spans = [slice(span.start, min(span.stop, span.start + k)) for span in map(self._span, ids)]
        offsets = np.concatenate([[0], np.cumsum([span.stop - span.start for span in spans])]).astype(np.int64)
        indices, scores = (
            np.concatenate([np.zeros(0, column.dtype), *(column[span] for span in spans)])
            for column in (self._run.indices, self._run.scores)
        )
        return Run(list(ids), self._run.documents, offsets, indices, scores)

    def scores(self, pairs: Sequence[Pair]) -> Scores:
        """As `Ranker` has it, found by the ids alone."""
        rows = {query: self._row(query) for query in dict.fromkeys(pair.query_id for pair in pairs)}
        found = [rows[pair.query_id][0].get(pair.document_id, rows[pair.query_id][1]) for pair in pairs]
        return np.array(found, np.float32)

    def facts(self) -> dict[str, Any]:
        """The file and its checksum."""
        return {"system": "run", "file": str(self._path), "sha256": sha256(self._path), "missing": self._missing}

    def _span(self, query: str) -> slice:
        row = self._row_of.get(query)
        return slice(0, 0) if row is None else slice(int(self._run.offsets[row]), int(self._run.offsets[row + 1]))

    def _row(self, query: str) -> tuple[dict[str, float], float]:
        """Scores by document, and that of any other document."""
        span = self._span(query)
        names = [self._run.documents[index] for index in self._run.indices[span].tolist()]
        scores = self._run.scores[span].tolist()
        lowest = scores[-1] if scores and self._missing == "lowest" else float("nan")
        return dict(zip(names, scores, strict=True)), lowest


class ModelRanker:
    """A model; one that ranks needs a corpus and its encoded store.

    Args:
      encoder: the model.
      mode: "dense", "lexical" or "multi_vector".
      corpus: what `store` holds the vectors of.
      store: made by `encode_corpus`; None for a model that only scores pairs.

    Raises:
      InputError: the model lacks the mode; the store is incomplete, damaged, or of another model or corpus.
    """

    def __init__(self, encoder: TextEncoder, mode: str, corpus: Corpus | None = None, store: str | Path | None = None):
        if mode not in encoder.model.config.heads:
            choices = ", ".join(encoder.model.config.heads)
            raise InputError("--mode", f"the model has no {mode!r}", f"Choose one of {choices}.")
        self._encoder, self._mode = encoder, mode
        self._position_of: Mapping[str, int] = {}
        if store is not None and corpus is not None:
            self._ids, self._position_of = store_ids(corpus), store_positions(corpus)
            self._stored = open_store(store, encoder, corpus)
        self._searched = lru_cache(maxsize=1)(self._search)

    def top_k(self, ids: Sequence[str], texts: Sequence[str], k: int) -> Run:
        """As `Ranker` has it: exact search, scores by the model's own rule."""
        queries = self._encoder.queries(list(texts))
        check_finite(queries, "query", ids)
        scores, positions = self._searched(min(k, len(self._stored)))(queries)
        divisors = query_divisors(queries, self._mode, self._encoder.model.config.maxsim)
        return Run.from_top_k(ids, self._ids, positions, scores / divisors[:, None])

    def scores(self, pairs: Sequence[Pair]) -> Scores:
        """As `Ranker` has it; passages of the store are read from there, others encoded."""
        chunks = (pairs[start : start + PAIRS_AT_ONCE] for start in range(0, len(pairs), PAIRS_AT_ONCE))
        return np.concatenate([np.zeros(0, np.float32), *map(self._chunk_scores, chunks)])

    def facts(self) -> dict[str, Any]:
        """The model's fingerprint, the mode and the text template."""
        model = self._encoder.model
        return {
            "system": self._mode,
            "model": model_fingerprint(self._encoder),
            "text": model.text.to_dict(),
            "maxsim": model.config.maxsim,
        }

    def _search(self, k: int) -> ExactSearch:
        config, mesh, budget = self._encoder.model.config, self._encoder.mesh, resident_bytes() / GB + MORE_GB
        return ExactSearch(self._mode, self._stored, mesh, k, config.encoder.vocab_size, memory_budget_gb=budget)

    def _chunk_scores(self, pairs: Sequence[Pair]) -> Scores:
        queries = _numbered(pair.query for pair in pairs)
        vectors = self._encoder.queries(list(queries))
        positions = [self._position_of.get(pair.document_id) for pair in pairs]
        if None not in positions:
            stored = _numbered(positions)
            passages = self._stored.rows(list(stored))
            places = [stored[position] for position in positions]
        else:
            separator = self._encoder.model.text.title_separator
            texts = [passage_text(pair.title, pair.text, separator) for pair in pairs]
            numbers = _numbered(texts)
            passages = self._encoder.passages(list(numbers))
            places = [numbers[text] for text in texts]
        rows = [(queries[pair.query], place) for pair, place in zip(pairs, places, strict=True)]
        return vector_scores(vectors, passages, rows, self._mode, self._encoder.model.config.maxsim)


def _numbered(values: Iterator[Any] | Sequence[Any]) -> dict[Any, int]:
    """Each value once, in order of appearance, with its place."""
    return {value: place for place, value in enumerate(dict.fromkeys(values))}
