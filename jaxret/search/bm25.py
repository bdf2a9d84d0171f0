"""BM25 (Lucene's formula) through the bm25s package: a corpus is indexed once, queries get their best documents.

A term t that occurs f times in a document of n terms adds ln(1 + (N - df + .5) / (df + .5)) * f / (f + k1 * (1 - b +
b * n / mean n)), for each time that the query has it (Kamphuis et al. 2020).
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.errors import InputError
from jaxret.files import atomic_folder, existing_folder, read_json, write_json
from jaxret.search.analyzers import analyzer

_SETTINGS = "settings.json"


@dataclass(frozen=True)
class BM25Settings:
    """`language` as `analyzer` takes it; `k1` and `b` of the formula, by default as in Anserini's baselines."""

    language: str
    k1: float = 0.9
    b: float = 0.4


@dataclass(frozen=True, eq=False)
class BM25:
    """An index over `num_documents` texts; positions are those of the texts it was built from."""

    settings: BM25Settings
    num_documents: int
    _index: Any

    @classmethod
    def build(cls, texts: Sequence[str], language: str, *, k1: float = 0.9, b: float = 0.4) -> BM25:
        """Indexes texts.

        Args:
          texts: the documents; the earlier one wins a tie, so give them in descending order of ids.
          language: of the analyzer.
          k1, b: of the formula.

        Raises:
          InputError: an unknown language code, no texts, or no term in any of them.
        """
        terms_of = analyzer(language)
        vocabulary: dict[str, int] = {}
        documents = [[vocabulary.setdefault(term, len(vocabulary)) for term in terms_of(text)] for text in texts]
        if not vocabulary:
            raise InputError("corpus", f"none of its {len(texts)} texts has a word", "Give texts to index.")
        index = _bm25s().BM25(k1=k1, b=b, method="lucene", backend="numpy")
        index.index((documents, vocabulary), create_empty_token=False, show_progress=False)
        return cls(BM25Settings(language, k1, b), len(texts), index)

    def save(self, folder: str | Path) -> None:
        """Writes the index and its settings, whole or not at all; an older index there is replaced."""
        with atomic_folder(folder) as temporary:
            self._index.save(temporary, show_progress=False)
            settings = {**asdict(self.settings), "method": "lucene", "num_documents": self.num_documents}
            write_json(temporary / _SETTINGS, settings)

    @classmethod
    def load(cls, folder: str | Path) -> BM25:
        """Reads what `save` wrote; raises InputError where it is missing or broken."""
        folder = existing_folder(folder)
        record = read_json(folder / _SETTINGS)
        try:
            index = _bm25s().BM25.load(folder, show_progress=False)
            settings = BM25Settings(record["language"], record["k1"], record["b"])
            return cls(settings, int(record["num_documents"]), index)
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(folder, f"is no whole BM25 index ({error!r})", "Index the corpus again.") from None

    def top_k(self, queries: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The best documents of each query: scores float32 [q k], positions int32 [q k], best first.

        Equal scores come in ascending order of positions. A document without a term of the query is no result: slots
        that stay empty have score 0 and position -1, all of them for a query without a known term.

        Raises:
          InputError: `k` is not within 1 and the size of the corpus.
        """
        if not 1 <= k <= self.num_documents:
            problem = f"{k} results of a corpus of {self.num_documents} documents"
            raise InputError("k", problem, f"Give 1 to {self.num_documents}.")
        scores = np.zeros((len(queries), k), np.float32)
        positions = np.full((len(queries), k), -1, np.int32)
        terms_of = analyzer(self.settings.language)
        for row, query in enumerate(queries):
            known = self._index.get_tokens_ids(terms_of(query))
            if known:
                best = _best(self._index.get_scores_from_ids(known), k)
                scores[row, : len(best[0])], positions[row, : len(best[0])] = best
        return scores, positions

    def scores(self, query: str, positions: Sequence[int]) -> np.ndarray:
        """float32 [n]: the score of each of n documents; 0 for one without a term of the query."""
        known = self._index.get_tokens_ids(analyzer(self.settings.language)(query))
        if not known:
            return np.zeros(len(positions), np.float32)
        return np.asarray(self._index.get_scores_from_ids(known)[list(positions)], np.float32)


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest of the scores above 0, and their positions; of equal ones the earlier position first."""
    positions = np.flatnonzero(scores)
    if len(positions) > k:
        positions = positions[scores[positions] >= np.partition(scores[positions], -k)[-k]]
    order = np.argsort(-scores[positions], kind="stable")[:k]
    return scores[positions[order]], positions[order]


def _bm25s() -> Any:
    """The package, imported when first used, and without JAX.

    It would run `jax.lax.top_k` while it is imported: 0.3 s, and devices taken before the program has set them up.
    """
    if "bm25s" not in sys.modules:
        modules: dict[str, Any] = sys.modules
        jax = modules.get("jax")
        modules["jax"] = None
        try:
            importlib.import_module("bm25s")
        finally:
            if jax is None:
                del modules["jax"]
            else:
                modules["jax"] = jax
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
    return sys.modules["bm25s"]
