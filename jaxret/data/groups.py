"""Training groups (n-way files): a query with its positives and its negatives, scored or not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxret.data.beir import BeirFolder
from jaxret.data.corpus import Corpus
from jaxret.data.rows import lines
from jaxret.errors import InputError
from jaxret.files import existing


@dataclass(frozen=True)
class Passage:
    """A document with the score that somebody gave it for the query; its id is "" where a file has texts only."""

    id: str
    title: str
    text: str
    score: float | None = None


@dataclass(frozen=True)
class Group:
    """A query, the passages that answer it, and those that do not.

    Attributes:
      query_id: "" where a file has texts only.
      query: its text.
      positives, negatives: its passages.
      place: where the group stands, `file:line` for example; two groups are equal wherever they stand.
    """

    query_id: str
    query: str
    positives: Sequence[Passage]
    negatives: Sequence[Passage]
    place: str = field(default="", compare=False)

    @property
    def scored(self) -> bool:
        """Whether every passage has a score."""
        return all(passage.score is not None for passage in (*self.positives, *self.negatives))


def document(corpus: Corpus, identifier: str, score: float | None = None) -> Passage:
    """A document of a corpus as a passage."""
    row = corpus.row_of[identifier]
    return Passage(identifier, corpus.titles[row], corpus.texts[row], score)


def positive_documents(folder: BeirFolder, split: str) -> dict[str, list[str]]:
    """{query id: ids of its relevant documents}, queries without one left out; InputError where none is left."""
    graded = folder.qrels(split)
    positives = {query: [name for name, grade in row.items() if grade > 0] for query, row in graded.items()}
    positives = {query: names for query, names in positives.items() if names}
    if not positives:
        raise InputError(folder.path, f"split {split!r} has no relevant document", "Give a grade above 0 to some.")
    return positives


def split_groups(folder: BeirFolder, split: str) -> Iterator[Group]:
    """The queries of a split with their relevant documents, and what `negatives.tsv` has for them, perhaps nothing.

    Raises:
      InputError: no query has a relevant document.
    """
    for query, names in positive_documents(folder, split).items():
        sides = (names, folder.negatives.get(query, []))
        positives, negatives = ([document(folder.corpus, name) for name in ids] for ids in sides)
        text = folder.queries.texts[folder.queries.row_of[query]]
        yield Group(query, text, positives, negatives, str(folder.path / "negatives.tsv"))


def beir_groups(folder: BeirFolder, split: str) -> Iterator[Group]:
    """Those of `split_groups` that have negatives.

    Raises:
      InputError: there are none.
    """
    group = None
    for group in filter(lambda each: each.negatives, split_groups(folder, split)):
        yield group
    if group is None:
        raise InputError(folder.path, f"no negatives.tsv for split {split!r}", "Make one with jaxret mine.")


def read_groups(path: str | Path, folder: BeirFolder | None = None) -> Iterator[Group]:
    """The groups of a ColBERT or FlagEmbedding file of JSON lines, plain or `.gz`; the first line tells which it is.

    ColBERT's are `[qid, pid+, pid-, ...]` or `[qid, [pid, score], ...]`, whose first passage is the positive;
    FlagEmbedding's `{"query", "pos", "neg", "pos_scores", "neg_scores"}`, the scores optional.

    Args:
      path: the file.
      folder: whose ids ColBERT's files name.

    Raises:
      InputError: with file and line: broken JSON, a field of another shape, an id that the folder lacks; an empty file.
    """
    path, group = existing(path), None
    for number, line in lines(path):
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(place, f"broken JSON ({error})", "Mend the line.") from None
        group = _colbert(place, row, folder) if isinstance(row, list) else _flagembedding(place, row)
        yield replace(group, place=place)
    if group is None:
        raise InputError(path, "holds no rows", "Give ColBERT's or FlagEmbedding's JSON lines.")


def _colbert(place: str, row: list[Any], folder: BeirFolder | None) -> Group:
    if folder is None:
        raise InputError(place, "names passages by their ids", "Give the BEIR folder that has them.")
    if len(row) < 2:
        raise InputError(place, f"{len(row)} fields", "Write [qid, pid, pid, ...] or [qid, [pid, score], ...].")
    query = _identifier(place, row[0])
    if query not in folder.queries.row_of:
        raise InputError(place, f"query {query!r} is not in queries.jsonl", "Give the folder that has it.")
    passages = [_scored_document(place, item, folder.corpus) for item in row[1:]]
    return Group(query, folder.queries.texts[folder.queries.row_of[query]], passages[:1], passages[1:])


def _scored_document(place: str, item: Any, corpus: Corpus) -> Passage:
    name, score = item if isinstance(item, list) and len(item) == 2 else (item, None)
    identifier = _identifier(place, name)
    if identifier not in corpus.row_of:
        raise InputError(place, f"document {identifier!r} is not in corpus.jsonl", "Give the folder that has it.")
    return document(corpus, identifier, None if score is None else _number(place, score))


def _identifier(place: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(place, f"{value!r} is no id", "Write [qid, pid, pid, ...] or [qid, [pid, score], ...].")
    return str(value)


def _flagembedding(place: str, row: Any) -> Group:
    if not isinstance(row, dict) or not isinstance(row.get("query"), str):
        raise InputError(place, '"query" is missing or not a string', "Write a string.")
    return Group("", row["query"], _passages(place, row, "pos"), _passages(place, row, "neg"))


def _passages(place: str, row: dict[str, Any], side: str) -> list[Passage]:
    texts, scores = row.get(side), row.get(f"{side}_scores")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(place, f'"{side}" is missing or not a list of strings', "Write a list of strings.")
    if scores is None:
        return [Passage("", "", text) for text in texts]
    if not isinstance(scores, list) or len(scores) != len(texts):
        raise InputError(place, f'"{side}_scores" does not fit "{side}"', "Give one score for each text.")
    return [Passage("", "", text, _number(place, score)) for text, score in zip(texts, scores, strict=True)]


def _number(place: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise InputError(place, f"score {value!r} is no number", "Write a number.")
    return float(value)
