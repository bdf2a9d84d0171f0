"""Train, search and evaluate multilingual text retrievers in JAX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxret.search.cross_encoder import CrossEncoder as CrossEncoder
    from jaxret.search.embedder import Embedder

__version__ = "0.1.0"


def from_pretrained(path: str | Path, **settings: Any) -> Embedder:
    """A retriever from a folder of any layout in `docs/models.md`, or from the hub: "hf:BAAI/bge-m3".

    Args and errors: see `jaxret.search.embedder.Embedder.from_pretrained`.
    """
    from jaxret.search.embedder import Embedder

    return Embedder.from_pretrained(path, **settings)


def __getattr__(name: str) -> Any:
    if name == "CrossEncoder":  # imported when it is asked for, so that `jaxret --help` stays quick
        from jaxret.search.cross_encoder import CrossEncoder

        return CrossEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def use_compile_cache() -> Path | None:
    """Keeps compiled programs on disk for later processes; see `jaxret.runtime.compile_cache`."""
    from jaxret.runtime import compile_cache

    return compile_cache.use_compile_cache()
