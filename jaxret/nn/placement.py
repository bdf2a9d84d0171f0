"""Where a layer finds its parameters: the mesh's rules say it, layers only ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

Axes = tuple[str | None, ...]
TABLE: Axes = ("vocab", "width")  # of token embeddings and output tables
Placement = Callable[[jax.Array, Axes], jax.Array]
_PLACEMENT: ContextVar[Placement | None] = ContextVar("placement", default=None)


@contextmanager
def placement(function: Placement) -> Iterator[None]:
    """Inside it, `function` brings every kernel to where it is used. Enter it inside the function that is traced."""
    token = _PLACEMENT.set(function)
    try:
        yield
    finally:
        _PLACEMENT.reset(token)


def moved() -> bool:
    """Whether kernels come from elsewhere."""
    return _PLACEMENT.get() is not None


def in_use(kernel: jax.Array, axes: Axes) -> jax.Array:
    """A kernel for one product, from the logical names of its axes; itself where nothing is said."""
    function = _PLACEMENT.get()
    return kernel if function is None else function(kernel, axes)
