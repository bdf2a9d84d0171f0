"""Rows of JSON-lines and tab-separated files, each with its line; a bad row is an error or a count."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxret.errors import InputError
from jaxret.files import existing


class RowError(Exception):
    """One bad row: the reason (the same words for every row of its kind), what was found, and the fix."""

    def __init__(self, reason: str, fix: str, found: Any = None):
        self.reason, self.fix, self.found = reason, fix, found
        super().__init__(reason)


class BadRows:
    """What happens to bad rows: `raise` stops at the first with InputError, `skip` leaves them out and counts.

    `counts` maps `file: reason` to the number of rows left out; `dropped` holds the ids of those that had one.
    """

    def __init__(self, policy: str = "raise"):
        if policy not in ("raise", "skip"):
            raise InputError("on_bad", f"unknown policy {policy!r}", 'Choose "raise" or "skip".')
        self.policy = policy
        self.counts: Counter[str] = Counter()
        self.dropped: set[str] = set()

    def add(self, path: Path, line: int, error: RowError) -> None:
        """Raises InputError for the row, or counts it."""
        if self.policy == "raise":
            found = "" if error.found is None else f", found {_short(error.found)}"
            raise InputError(f"{path}:{line}", error.reason + found, error.fix)
        self.counts[f"{path.name}: {error.reason}"] += 1


def lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Line numbers (from 1) and lines of a UTF-8 file, plain or `.gz`; blank lines are left out.

    Raises InputError where the file is missing, not UTF-8, or its gzip data is broken or cut off.
    """
    return ((number, line) for number, line in every_line(path) if line.strip())


def every_line(path: str | Path) -> Iterator[tuple[int, str]]:
    """As `lines`, with the blank ones."""
    path, number = existing(path), 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}:{number}", "not UTF-8", "Convert the file to UTF-8.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path}:{number + 1}", "gzip data broken or cut off", "Fetch or make it again.") from None


def json_rows(path: str | Path, bad: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of a JSON-lines file."""
    path = existing(path)
    for number, line in lines(path):
        try:
            row = json.loads(line.rstrip())
        except (ValueError, RecursionError) as error:
            bad.add(path, number, RowError("broken JSON", "Mend the line.", str(error)))
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            bad.add(path, number, RowError("not a JSON object", 'Write {"_id": ..., "text": ...}.', row))


def tsv_rows(path: str | Path, header: tuple[str, ...], bad: BadRows) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and columns of a tab-separated file; raises InputError where it does not start with `header`."""
    path, fix = existing(path), f"Write {'<TAB>'.join(header)}."
    start = True
    for number, line in lines(path):
        columns = line.rstrip("\r\n").split("\t")
        if start and tuple(columns) != header:
            raise InputError(f"{path}:{number}", f"wrong header, found {_short(line.rstrip())}", fix)
        if not start:
            if len(columns) == len(header) and all(columns):
                yield number, columns
            else:
                bad.add(path, number, RowError(f"not {len(header)} filled columns", fix, line.rstrip("\r\n")))
        start = False
    if start:
        raise InputError(f"{path}:1", "the file is empty", fix)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
