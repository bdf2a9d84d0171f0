"""One dtype policy: parameters float32, products in the compute dtype, scores and losses float32."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxret.errors import InputError

CHOICES = ("auto", "float32", "bfloat16")


def compute_dtype(name: str = "auto") -> jnp.dtype:
    """The dtype of activations and products: "auto" is bfloat16 on accelerators and float32 on CPU."""
    if name not in CHOICES:
        raise InputError("precision", f"unknown {name!r}", f"Choose one of {', '.join(CHOICES)}.")
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def cast(tree: Any, dtype: jnp.dtype) -> Any:
    """The floating arrays of a pytree in the compute dtype; parameters are cast once, where the model is applied."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


@cache
def multiplies_bfloat16(information: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this machine's CPU has instructions for products of bfloat16; False where it cannot be told.

    Args:
      information: what the system says of its processors.
    """
    words = information.read_text().split() if information.exists() else []
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(words)
