"""Random token vectors of queries and documents, for the libraries' scorers and for ours."""

import numpy as np

from jaxret.runtime.mesh import device_mesh
from jaxret.search.exact import ExactSearch
from jaxret.search.vectors import Ragged, Vectors

QUERIES, DOCUMENTS, WIDTH = 7, 300, 16


def unit(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Vectors of length one."""
    found = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


def token_vectors() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of queries of 1 to 9 tokens and documents of 1 to 40, some with negative products only for a query's token."""
    lengths = np.random.default_rng(0)
    queries = [unit((int(lengths.integers(1, 10)), WIDTH), seed) for seed in range(QUERIES)]
    documents = [unit((int(lengths.integers(1, 41)), WIDTH), 100 + seed) for seed in range(DOCUMENTS)]
    return queries, documents


def padded(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Zeros behind each, and a mask, bool."""
    longest = max(map(len, rows))
    mask = np.arange(longest)[None] < np.array([len(row) for row in rows])[:, None]
    return np.stack([np.pad(row, ((0, longest - len(row)), (0, 0))) for row in rows]), mask


def searched(queries: list[np.ndarray], documents: list[np.ndarray]) -> np.ndarray:
    """Scores of all documents in the exact search, [q c]."""
    corpus = Vectors(tokens=Ragged.from_rows(documents))
    search = ExactSearch("multi_vector", corpus, device_mesh(), len(documents))
    return in_order(*search(Vectors(tokens=Ragged.from_rows(queries))))


def in_order(scores: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Results of a search as a score for each document."""
    found = np.full_like(scores, np.nan)
    np.put_along_axis(found, positions, scores, axis=1)
    return found
