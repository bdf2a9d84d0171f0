"""Queries from a file of their own, or from a BEIR folder."""

from __future__ import annotations

from pathlib import Path

from jaxret.data.beir import BeirFolder
from jaxret.data.beir_rows import duplicate, texts
from jaxret.data.rows import BadRows, lines
from jaxret.errors import InputError
from jaxret.files import existing


def queries_from(path: str | Path, split: str | None = None) -> tuple[list[str], list[str]]:
    """Ids and texts, in the order of the file.

    Args:
      path: JSON lines `{"_id", "text"}`, or lines `qid<TAB>text`, plain or `.gz`; or a BEIR folder.
      split: of a folder, only the queries that these qrels judge.

    Raises:
      InputError: with `file:line`: a bad row, or an id that occurs twice; a split without a folder; no queries.
    """
    path = Path(path)
    if path.is_dir():
        queries, judged = BeirFolder(path).queries, None if split is None else BeirFolder(path).qrels(split)
        rows = [row for row in zip(queries.ids, queries.texts, strict=True) if judged is None or row[0] in judged]
        return [name for name, _ in rows], [text for _, text in rows]
    if split is not None:
        raise InputError("split", f"{path} is no BEIR folder", "Leave the split out, or give the folder.")
    path = existing(path)
    if next((line for _, line in lines(path)), "").lstrip().startswith("{"):
        found = [(row.id, row.text) for row in texts(path, BadRows())]
    else:
        found = _tab_separated(path)
    if not found:
        raise InputError(path, "has no queries", "Write one a line.")
    return [name for name, _ in found], [text for _, text in found]


def queries_file(path: str | Path) -> Path:
    """The file that `queries_from` takes queries from."""
    path = Path(path)
    return existing(path / "queries.jsonl" if path.is_dir() else path)


def _tab_separated(path: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    first: dict[str, int] = {}
    for number, line in lines(path):
        name, tab, text = line.rstrip("\r\n").partition("\t")
        if not tab or not name or not text.strip():
            fix = 'Write qid<TAB>text, or JSON lines {"_id": ..., "text": ...}.'
            raise InputError(f"{path}:{number}", "is not an id, a tab and a text", fix)
        if first.setdefault(name, number) != number:
            raise duplicate(path, name, first[name], number)
        found.append((name, text))
    return found
