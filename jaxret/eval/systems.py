"""Runs of every system over one corpus and one set of queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from jaxret.data.beir import BeirFolder
from jaxret.data.corpus import Corpus
from jaxret.errors import InputError
from jaxret.runtime.mesh import own_mesh
from jaxret.search.bm25 import BM25, BM25Settings
from jaxret.search.corpus import passage_texts, store_ids
from jaxret.search.encode import TextEncoder
from jaxret.search.exact import ExactSearch
from jaxret.search.hybrid import HYBRIDS, HybridSettings, hybrid_runs, result_scores
from jaxret.search.runs import Run, first
from jaxret.search.store import StoredVectors
from jaxret.search.vectors import Vectors, check_finite

MODES = ("dense", "lexical", "multi_vector")
SYSTEMS = ("bm25", *MODES, "fusion", *HYBRIDS)


def checked_systems(names: Sequence[str]) -> list[str]:
    """The names, each one known and once; raises InputError."""
    for name in names:
        if name not in SYSTEMS:
            raise InputError("--systems", f"unknown {name!r}", f"Choose from {', '.join(SYSTEMS)}.")
    if len(set(names)) < len(names) or not names:
        raise InputError("--systems", f"{','.join(names)!r} repeats a system or is empty", "Name each once.")
    return list(names)


def judged(folder: BeirFolder, split: str) -> tuple[list[str], list[str]]:
    """Ids and texts of the queries that a split judges, in the order of the queries file."""
    qrels = folder.qrels(split)
    rows = [row for row, query in enumerate(folder.queries.ids) if query in qrels]
    return [folder.queries.ids[row] for row in rows], [folder.queries.texts[row] for row in rows]


def bm25_run(
    corpus: Corpus,
    language: str,
    ids: Sequence[str],
    texts: Sequence[str],
    k: int,
    analyzer_name: str | None = None,
    folder: Path | None = None,
) -> tuple[Run, BM25Settings]:
    """BM25 over title and text, and how it was indexed.

    Args:
      corpus: the documents.
      language, analyzer_name: as `analyzer` takes them.
      ids, texts: the queries.
      k: results a query.
      folder: where the index goes, one part of which is in memory at a time; None keeps it there.
    """
    passages = passage_texts(corpus, " ")
    if folder is None:
        index = BM25.build(passages, language, analyzer_name)
    else:
        BM25.write(folder, passages, language, analyzer_name)
        index = BM25.load(folder, parts_held=1)
    scores, positions = index.top_k(texts, k)
    return Run.from_top_k(list(ids), store_ids(corpus), positions, scores), index.settings


def model_runs(
    encoder: TextEncoder,
    documents: tuple[Sequence[str], Vectors | StoredVectors],
    ids: Sequence[str],
    texts: Sequence[str],
    modes: Sequence[str],
    k: int,
    progress: Callable[[str], AbstractContextManager[Callable[[int], None]]] | None = None,
    hybrid: HybridSettings | None = None,
    memory_budget_gb: float | None = None,
    share: tuple[int, int] = (0, 1),
) -> dict[str, Run]:
    """Exact search with each of the modes, and BGE-M3's protocol; queries are encoded once.

    Args:
      encoder: the model.
      documents: ids and vectors, in the order of a store.
      ids, texts: the queries.
      modes: "dense", "lexical", "multi_vector".
      k: results a query.
      progress: given a mode, the context of a function that hears how many more documents are scored.
      hybrid: if given, the runs of `hybrid_runs` are there too; it needs all three modes of the model.
      memory_budget_gb, share: see `ExactSearch`; of several processes, the first alone has the protocol's runs.
    """
    document_ids, vectors = documents
    queries = encoder.queries(list(texts))
    check_finite(queries, "query", ids)
    runs, deep = {}, min(hybrid.candidates, len(document_ids)) if hybrid else 0
    for mode in MODES:
        depth = max(k if mode in modes else 0, deep if mode != "multi_vector" else 0)
        if depth:
            vocabulary = encoder.model.config.encoder.vocab_size
            mesh = own_mesh(encoder.mesh)
            search = ExactSearch(mode, vectors, mesh, depth, vocabulary, memory_budget_gb=memory_budget_gb, share=share)
            with progress(mode) if progress else nullcontext() as advance:
                scores, positions = search(queries, advance)
            runs[mode] = Run.from_top_k(list(ids), document_ids, positions, scores)
    found = {mode: first(runs[mode], k) for mode in modes}
    if hybrid and share[0] == 0:
        dense, lexical = (first(runs[mode], deep) for mode in ("dense", "lexical"))

        def score(run: Run, mode: str) -> np.ndarray:
            return result_scores(run, mode, queries, document_ids, vectors, encoder.model.config.maxsim)

        together = hybrid_runs(dense, lexical, score, hybrid)
        found |= {name: first(run, k) for name, run in together.items()}
    return found
