"""Fewer vectors a document: the means of clusters of its tokens (Clavié et al. 2024, "Token Pooling")."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from jaxret.errors import InputError
from jaxret.search.vectors import Ragged


def pooled(tokens: Ragged, pool_factor: int, protected_tokens: int = 0) -> Ragged:
    """Every document's tokens in `length // pool_factor` clusters (one at least), each the unit vector of its mean.

    The clusters are Ward's, cut where there are as many as wanted. As in ColBERT and PyLate the points between which
    Ward's method measures are the rows of the document's matrix of cosine distances, not the vectors themselves.

    Args:
      tokens: unit vectors.
      pool_factor: how many times fewer; 1 leaves all as they are.
      protected_tokens: the first so many of a document are kept apart, behind the clusters.

    Raises:
      InputError: a factor below 1.
    """
    if pool_factor < 1:
        raise InputError("pool_factor", f"{pool_factor}", "Give 1 to keep all tokens, 2 or more to pool them.")
    if pool_factor == 1:
        return tokens
    return Ragged.from_rows([_pooled(tokens.row(row), pool_factor, protected_tokens) for row in range(len(tokens))])


def _pooled(vectors: Float[np.ndarray, "l k"], pool_factor: int, protected_tokens: int) -> Float[np.ndarray, "m k"]:
    """One document's."""
    vectors = np.asarray(vectors, np.float32)
    protected, rest = vectors[:protected_tokens], vectors[protected_tokens:]
    if len(rest) < 2:
        return vectors
    count = max(len(vectors) // pool_factor, 1)
    labels = fcluster(linkage(pdist(1 - rest @ rest.T), method="ward"), t=count, criterion="maxclust")
    sums = np.stack([rest[labels == label].mean(axis=0) for label in np.unique(labels)])
    return np.concatenate([unit(sums), protected])


def unit(vectors: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """The same with length one; a vector of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
