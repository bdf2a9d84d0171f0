"""Reading plain or gzip files, and writing so that nothing is ever half-written."""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import io
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from jaxret.errors import InputError
from jaxret.left_overs import own_prefix, remove, remove_left_overs

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux


def existing(path: str | Path) -> Path:
    """The path itself or its `.gz` twin; raises InputError where neither exists."""
    path = Path(path)
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    raise InputError(path, "no such file (nor with .gz)", "Check the path.")


def existing_folder(path: str | Path) -> Path:
    """The path of a folder; raises InputError where there is none."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(path, "no such folder", "Check the path.")
    return path


def open_text(path: str | Path) -> io.TextIOWrapper:
    """Opens a UTF-8 text file for reading, plain or `.gz`."""
    path = existing(path)
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8", newline="\n")
    return open(path, encoding="utf-8", newline="\n")


@contextmanager
def atomic(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Writes to a temporary name beside `path` and renames at the end: all of the file, or none.

    On an error inside the block the temporary file is removed and an older `path` stays as it was. What a process that
    was killed left behind is removed by the next one that writes the same `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = None if "b" in mode else "utf-8"
    remove_left_overs(path)
    descriptor, name = tempfile.mkstemp(prefix=own_prefix(path), dir=path.parent)
    try:
        with os.fdopen(descriptor, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place at the end: all of it, or none.

    An older folder stays until then. Where the system and the file system can exchange two names there is a whole one
    at every moment, even if this process is killed; elsewhere not between two renames. What it leaves then is removed
    as with `atomic`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left_overs(path)
    temporary = Path(tempfile.mkdtemp(prefix=own_prefix(path), dir=path.parent))
    os.chmod(temporary, 0o777 & ~_umask())
    try:
        yield temporary
        if path.exists():
            if not _exchanged(path, temporary):
                _exchange(path, temporary)
            remove(temporary)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def scratch_folder(path: str | Path) -> Iterator[Path]:
    """A folder beside `path` for what is needed for a while, removed at the end.

    What a process that was killed left behind is removed as with `atomic`, by the next one that names the same `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left_overs(path)
    with tempfile.TemporaryDirectory(prefix=own_prefix(path), dir=path.parent) as folder:
        yield Path(folder)


def _exchanged(path: Path, other: Path) -> bool:
    """Whether two names were swapped in one step, which not every system and file system can do."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(path), os.fsencode(other)
    return bool(rename and rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0)


def _exchange(path: Path, other: Path) -> None:
    """Swaps two names by renaming; `path` is back where that fails."""
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    try:
        os.replace(path, aside / path.name)
        try:
            os.replace(other, path)
        except BaseException:
            os.replace(aside / path.name, path)
            raise
        os.replace(aside / path.name, other)
    finally:
        with suppress(OSError):  # what could not be renamed is still in it
            aside.rmdir()


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, atomically."""
    with atomic(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file; raises InputError with the line where it is broken."""
    place, fix = str(path), "Mend or remake the file."
    with open_text(path) as file:
        try:
            return json.load(file)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}:{error.lineno}", f"broken JSON: {error.msg}", fix) from None
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(place, f"broken JSON: {error}", fix) from None


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
