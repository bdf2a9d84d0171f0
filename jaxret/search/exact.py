"""Exact search: a corpus goes over the devices in blocks, each scored while the next is read, with a running top-k.

A document's score has the same bits on any number of devices, from memory or from a store: see `search.blocks`. Ties go
by position, so the results are the same too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from jaxret.errors import InputError
from jaxret.runtime.precision import compute_dtype
from jaxret.search.blocks import MODES
from jaxret.search.budget import fits
from jaxret.search.by_vocabulary import VocabularySearch
from jaxret.search.device_memory import fits_devices
from jaxret.search.on_devices import DeviceSearch, is_one_cpu
from jaxret.search.processes import best_of_processes
from jaxret.search.reduced import ReducedSearch
from jaxret.search.reduced_dense import ReducedDense
from jaxret.search.reduced_maxsim import ReducedMaxSim
from jaxret.search.store import StoredVectors
from jaxret.search.vectors import Vectors, check_finite

LEXICAL_FORMS = ("by_vocabulary", "pairwise")
REDUCED: dict[str, type[ReducedSearch]] = {"dense": ReducedDense, "multi_vector": ReducedMaxSim}


class ExactSearch:
    """One representation of a corpus, searched exactly.

    Args:
      mode: "dense", "lexical" or "multi_vector".
      corpus: the documents' vectors, in memory or stored; a document's position is its row.
      mesh: the devices that share the corpus, all of this process.
      k: results a query.
      vocab_size: length of a lexical vector (for "lexical" only).
      dtype: of the vectors in the products; scores are float32 whatever it is.
      memory_budget_gb: what this process may hold, in GB (10^9 bytes): if the corpus does not fit, or does not fit the
        devices, each call reads it again in parts that do. None keeps the whole corpus on the devices.
      share: (number, count): this process scores every count-th part of the corpus, then all of them exchange results,
        so every process makes the same calls.
      lexical_form: where lexical scores are added up, with the same bits: "by_vocabulary", on the host, from the
        documents of each of a query's terms; "pairwise", on the devices, from the terms of each document. None is
        the former where the devices are CPUs.

    Raises:
      InputError: k is larger than the corpus, the corpus lacks the representation or is not finite, no such form, or
        without a budget the corpus is more than the devices have left.
    """

    def __init__(
        self,
        mode: str,
        corpus: Vectors | StoredVectors,
        mesh: Mesh,
        k: int,
        vocab_size: int | None = None,
        dtype: str = "float32",
        memory_budget_gb: float | int | None = None,
        share: tuple[int, int] = (0, 1),
        lexical_form: str | None = None,
    ):
        if mode not in MODES:
            raise InputError("mode", f"unknown {mode!r}", f"Choose one of {', '.join(MODES)}.")
        if not 1 <= k <= len(corpus):
            raise InputError("k", f"{k} results of a corpus of {len(corpus)} documents", f"Give 1 to {len(corpus)}.")
        if lexical_form not in (None, *LEXICAL_FORMS):
            problem = f"unknown {lexical_form!r}"
            raise InputError("lexical_form", problem, f"Choose one of {', '.join(LEXICAL_FORMS)}.")
        corpus.needed(MODES[mode].arrays[0])
        if isinstance(corpus, Vectors):  # what is stored was checked then
            check_finite(corpus, "document")
        self.mode, self.k, self._share = mode, k, share
        products, corpus_bytes = compute_dtype(dtype), corpus.nbytes(MODES[mode].arrays)
        on_cpus = mesh.devices.flat[0].platform == "cpu"
        on_host = mode == "lexical" and (lexical_form or LEXICAL_FORMS[not on_cpus]) == "by_vocabulary"
        streamed = memory_budget_gb is not None and not (
            fits(memory_budget_gb, corpus_bytes) and (on_host or fits_devices(mode, corpus, mesh, share))
        )
        budget, vocabulary = memory_budget_gb if streamed else None, vocab_size or 0
        self._searched: Callable[..., tuple[np.ndarray, np.ndarray]]
        if on_host:
            self._searched = VocabularySearch(corpus, k, vocabulary, products, budget, share)
            return
        plain = partial(DeviceSearch, mode, corpus, mesh, k, products, vocabulary, budget, share)
        reduced = REDUCED.get(mode) if is_one_cpu(mesh) and products == np.float32 and not streamed else None
        if reduced and reduced.pays(k, len(corpus)):
            room = corpus_bytes + reduced.workspace(k, mesh, corpus)
            if memory_budget_gb is None or fits(memory_budget_gb, room):
                self._searched = reduced(plain)
                return
        self._searched = plain()

    def __call__(
        self, queries: Vectors, progress: Callable[[int], None] | None = None
    ) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
        """Scores and positions of the best k documents for each query, best first; ties by ascending position.

        Args:
          queries: their vectors.
          progress: hears how many more documents are scored, in the end all of them.

        Raises:
          InputError: the memory budget is too small, or a query is not finite.
        """
        check_finite(queries, "query")
        found = self._searched(queries, _Scored(progress, len(queries)))
        return best_of_processes(*found) if self._share[1] > 1 else found


class _Scored:
    """Tells of documents scored: each counts as the share of the queries that it was scored for."""

    def __init__(self, progress: Callable[[int], None] | None, queries: int):
        self._progress, self._queries, self._pairs, self._told = progress, queries, 0, 0
        self._telling = threading.Lock()

    def __call__(self, queries: int, documents: int) -> None:
        """So many more documents are scored for so many queries, says one lane."""
        with self._telling:
            self._pairs += queries * documents
            more = self._pairs // self._queries - self._told
            self._told += more
            if self._progress:
                self._progress(more)
