"""Checksums of a folder's files, kept in the folder: what was cut short or flipped since is found by name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jaxret.files import atomic, sha256

SUMS = "SHA256SUMS"  # lines as sha256sum writes them; the last is the sum of those before it
HASHERS = 2  # files at a time: a disk gives no more, and each takes a buffer
CHECKSUM = "checksum"  # of a JSON record, within it


def seal(folder: str | Path) -> None:
    """Writes the checksums of all files in a folder, after they have reached the disk."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    with ThreadPoolExecutor(HASHERS) as pool:
        sums = list(pool.map(_settled, files))
    lines = "".join(f"{digest}  {path.relative_to(folder)}\n" for path, digest in zip(files, sums, strict=True))
    with atomic(folder / SUMS) as file:
        file.write(f"{lines}{_digest(lines)}  {SUMS}\n")


def damaged(folder: str | Path, parts: Sequence[str] = ("",)) -> Path | None:
    """The first file that is missing or is not what was sealed; None where all are, or where nothing was sealed.

    Args:
      folder: a sealed folder.
      parts: the files and folders in it that matter; all of them by default.
    """
    folder = Path(folder)
    if not (folder / SUMS).exists():
        return None
    lines, _, last = (folder / SUMS).read_bytes().decode(errors="replace").removesuffix("\n").rpartition("\n")
    lines += "\n"
    if last != f"{_digest(lines)}  {SUMS}":
        return folder / SUMS
    sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines.splitlines())}
    names = [name for name in sums if any(part in ("", name) or name.startswith(f"{part}/") for part in parts)]
    with ThreadPoolExecutor(HASHERS) as pool:
        found = pool.map(_sum, (folder / name for name in names))
        return next((folder / name for name, digest in zip(names, found, strict=True) if digest != sums[name]), None)


def with_checksum(record: dict[str, Any]) -> dict[str, Any]:
    """A JSON record and the SHA-256 of what it says, however the file will lay it out."""
    return record | {CHECKSUM: _digest(json.dumps(record, sort_keys=True))}


def without_checksum(record: dict[str, Any]) -> dict[str, Any] | None:
    """What `with_checksum` was given; None where the record says something else now."""
    bare = {name: value for name, value in record.items() if name != CHECKSUM}
    return bare if with_checksum(bare) == record else None


def _settled(path: Path) -> str:
    """The checksum of a file that has reached the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return sha256(path)


def _sum(path: Path) -> str:
    return sha256(path) if path.is_file() else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
