"""The record beside every result: what was run, on what, with which versions."""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jaxret

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "sentencepiece",
    "tensorflow",
    "seqio",
    "bm25s",
    "PyStemmer",
)


def manifest(**facts: Any) -> dict[str, Any]:
    """A JSON-able record of command, versions, commit and time, and of the facts given, which replace none of these."""
    record = {
        "command": sys.argv,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "jaxret": jaxret.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: v for name in PACKAGES if (v := _version(name))},
    }
    return record | facts | record


def machine(mesh: Any) -> dict[str, Any]:
    """The devices of a mesh, as facts for a manifest."""
    device = mesh.devices.flat[0]
    return {"mesh": dict(mesh.shape), "device_kind": device.device_kind, "num_devices": mesh.devices.size}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that jaxret runs from; None when it is installed."""
    try:
        args = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(args, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
