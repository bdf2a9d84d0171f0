"""Compiled programs kept on disk, so that the second start is quick."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import jax

SETTING = "JAXRET_CACHE"


def use_compile_cache() -> Path | None:
    """Keeps every compiled program for the next process, and takes what an earlier one kept.

    The folder is `$JAXRET_CACHE`, else `jaxret` in `$XDG_CACHE_HOME` or `~/.cache`; programs of unlike processors are
    kept apart. Where JAX has a folder already (`JAX_COMPILATION_CACHE_DIR`) that one is used, and an empty
    `JAXRET_CACHE` turns it off.

    Returns:
      The folder in use, or None.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir:
        return Path(config.jax_compilation_cache_dir)
    place = os.environ.get(SETTING)
    if place == "":
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = (Path(place) if place else home / "jaxret") / "compiled" / _processor()
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", 0)
    config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def _processor() -> str:
    """A name for processors with the same instructions: a home folder may be shared by several kinds."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"
