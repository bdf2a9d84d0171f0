"""Vectors in fewer bytes: bfloat16, or integers of eight bits with a scale for each vector."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Float, Float32, Int8

from jaxret.errors import InputError
from jaxret.search.vectors import Ragged, Vectors

DTYPES = ("float32", "bfloat16", "int8")
LARGEST = 127


def check_dtype(dtype: str) -> None:
    """Raises InputError for a dtype that a store cannot have."""
    if dtype not in DTYPES:
        raise InputError("dtype", f"unknown {dtype!r}", f"Choose one of {', '.join(DTYPES)}.")


def quantized(x: Float[np.ndarray, "n k"]) -> tuple[Int8[np.ndarray, "n k"], Float32[np.ndarray, " n"]]:
    """Integers and scales; `integers * scale` is `x` to half a scale, a 127th of the vector's largest number."""
    scales = (np.abs(x).max(axis=1, initial=0) / LARGEST).astype(np.float32)
    divisors = np.where(scales > 0, scales, 1)[:, None]
    with np.errstate(invalid="ignore"):  # of what is not finite, as its scale says
        return np.rint(x / divisors).clip(-LARGEST, LARGEST).astype(np.int8), scales


def stored_as(vectors: Vectors, dtype: str) -> Vectors:
    """Dense vectors and tokens in another dtype; lexical weights stay float32.

    Args:
      vectors: float32.
      dtype: "float32", "bfloat16" or "int8".
    """
    check_dtype(dtype)
    if dtype == "float32":
        return vectors
    dense, tokens, changed = vectors.dense, vectors.tokens, dict[str, Any]()
    if dense is not None:
        changed["dense"], changed["dense_scales"] = _encoded(dense, dtype)
    if tokens is not None:
        values, scales = _encoded(tokens.values, dtype)
        changed["tokens"] = Ragged(values, tokens.offsets)
        changed["token_scales"] = None if scales is None else Ragged(scales, tokens.offsets)
    return dataclasses.replace(vectors, **changed)


def _encoded(x: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    return quantized(x) if dtype == "int8" else (x.astype(ml_dtypes.bfloat16), None)


def decoded(vectors: Vectors) -> Vectors:
    """The same vectors in float32, without scales."""
    dense, tokens = vectors.dense, vectors.tokens
    if dense is not None:
        dense = _decoded(dense, vectors.dense_scales)
    if tokens is not None:
        scales = None if vectors.token_scales is None else vectors.token_scales.values
        tokens = Ragged(_decoded(tokens.values, scales), tokens.offsets)
    return Vectors(dense, tokens, vectors.term_ids, vectors.term_weights)


def _decoded(x: np.ndarray, scales: np.ndarray | None) -> Float32[np.ndarray, "n k"]:
    numbers = x.astype(np.float32, copy=False)
    return numbers if scales is None else numbers * scales[:, None]
