"""The rows of a BEIR folder's files, checked field by field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxret.data.rows import BadRows, RowError, json_rows, tsv_rows
from jaxret.errors import InputError

Qrels = dict[str, dict[str, int]]
Pair = tuple[int, str, str, int]  # line, query id, document id, score
HEADER = ("query-id", "corpus-id", "score")


class Text(NamedTuple):
    """A row of `corpus.jsonl` or `queries.jsonl`."""

    line: int
    id: str
    title: str
    text: str


def texts(path: Path, bad: BadRows) -> Iterator[Text]:
    """The rows of `corpus.jsonl` or `queries.jsonl`; a duplicate id always raises InputError."""
    first: dict[str, int] = {}

    def once(identifier: str, line: int) -> None:
        if first.setdefault(identifier, line) != line:
            raise duplicate(path, identifier, first[identifier], line)

    return unchecked_texts(path, bad, once)


def unchecked_texts(
    path: Path, bad: BadRows, seen: Callable[[str, int], object] = lambda identifier, line: None
) -> Iterator[Text]:
    """As `texts`, but duplicate ids are the caller's to find; `seen` hears of each id and line, of bad rows too."""
    empty = True
    for line, row in json_rows(path, bad):
        identifier = None
        try:
            identifier = _identifier(row)
            seen(identifier, line)
            empty = False
            yield Text(line, identifier, _text(row, "title", ""), _text(row, "text"))
        except RowError as error:
            bad.add(path, line, error)
            bad.dropped.update([identifier] if identifier else [])
    if empty:
        raise InputError(path, "holds no rows", 'Write one JSON object a line, {"_id": ..., "text": ...}.')


def duplicate(path: Path, identifier: str, first: int, line: int) -> InputError:
    """The error for an id that two lines have."""
    problem = f'"_id" {identifier!r} is there twice, first in line {first}'
    return InputError(f"{path}:{line}", problem, "Remove one of them or give it another id.")


def _identifier(row: dict[str, Any]) -> str:
    value = row.get("_id")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(row, "_id")


def _text(row: dict[str, Any], field: str, default: str | None = None) -> str:
    value = row.get(field)
    value = default if value is None else value
    if not isinstance(value, str):
        raise RowError(f'"{field}" is missing or not a string', "Write a string.", value)
    if default is None and not value.strip():
        raise RowError(f'"{field}" is empty', "Fill it or remove the row.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f'"{field}" holds half a surrogate pair', "Mend the broken \\u escape.") from None
    return value


def graded(path: Path, bad: BadRows) -> Iterator[Pair]:
    """The rows of a qrels file, each with its whole-number grade."""
    empty = True
    for line, (query, document, score) in tsv_rows(path, HEADER, bad):
        try:
            yield line, query, document, int(score)
            empty = False
        except ValueError:
            bad.add(path, line, RowError('"score" is not a whole number', "Write 0, 1, 2, ...", score))
    if empty:
        raise InputError(path, "holds no judgements", "Write one line for each judged query and document.")


def scored(path: Path, bad: BadRows) -> Iterator[Pair]:
    """The rows of `negatives.tsv`, whose scores tell how they were found: any text will do, and 0 is returned."""
    for line, (query, document, _) in tsv_rows(path, HEADER, bad):
        yield line, query, document, 0


def grouped(path: Path, pairs: Iterable[Pair], bad: BadRows) -> Qrels:
    """{query id: {document id: score}}, both in the order of the rows."""
    groups: Qrels = {}
    for line, query, document, score in pairs:
        group = groups.setdefault(query, {})
        if document in group:
            bad.add(path, line, RowError("the query and document are there twice", "Remove one.", (query, document)))
        else:
            group[document] = score
    return groups
