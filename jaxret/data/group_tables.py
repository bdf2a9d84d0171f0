"""Training groups as tables: the queries, and every document that they name, once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from jaxret.data.groups import Group, Passage
from jaxret.data.tables import Column, Content
from jaxret.data.tensorflow_cpu import tf
from jaxret.data.text_tokenizer import encodable
from jaxret.errors import InputError

COLUMNS = {
    **dict.fromkeys(("id", "title", "text"), Column(tf.string)),
    "key": Column(tf.int64),
    **dict.fromkeys(("positives", "negatives", "relevant"), Column(tf.int64, many=True)),
    **dict.fromkeys(("positive_scores", "negative_scores"), Column(tf.float32, many=True)),
}


def passage_key(title: str, text: str) -> int:
    """A stable 31-bit hash of a passage's words: copies of it are equal, under any id, in any folder or file.

    Title and text count as one, white space as one space: files of groups hold both in one string.
    """
    words = " ".join(f"{title} {text}".split())
    digest = hashlib.blake2b(words.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF


def group_tables(groups: Iterable[Group]) -> Content:
    """`queries` (id, text, and rows of documents with their scores) and `documents` (id, title, text, key).

    A query's `positives` and `negatives` are those of its group, its `relevant` documents the positives of all groups
    with the same query. A document is stored once, however many queries name it. Facts: `without_negatives` and
    `without_scores` are the first place and query of that kind, [] where there is none; `most_relevant` is the most
    relevant documents of a query.

    Raises:
      InputError: a group has no positive, or an empty or broken text.
    """
    row_of: dict[tuple[str, str, str], int] = {}
    relevant: dict[str, dict[int, None]] = {}
    queries: list[dict[str, Any]] = []
    facts: dict[str, Any] = {"without_negatives": [], "without_scores": []}
    for group in groups:
        _check(group)
        positives, negatives = (_rows(passages, row_of) for passages in (group.positives, group.negatives))
        known = relevant.setdefault(_identity(group), {})
        known |= dict.fromkeys(positives)
        scores = [[p.score for p in side if group.scored] for side in (group.positives, group.negatives)]
        named = {"positives": positives, "negatives": negatives, "relevant": known}
        queries.append(_record(group.query_id, "", group.query, 0, **named, scores=scores))
        for name, complete in (("without_negatives", group.negatives), ("without_scores", group.scored)):
            if not (complete or facts[name]):
                facts[name] = [group.place, group.query_id or group.query]
    for query in queries:
        query["relevant"] = list(query["relevant"])
    facts["most_relevant"] = max(map(len, relevant.values()), default=0)
    documents = [_record(*fields, passage_key(*fields[1:])) for fields in row_of]
    return Content({"documents": documents, "queries": queries}, facts)


def _check(group: Group) -> None:
    if not group.positives:
        raise InputError(group.place, "a query without a positive passage", "Give it one, or remove the line.")
    for text in (group.query, *(passage.title + passage.text for passage in (*group.positives, *group.negatives))):
        if not text.strip():
            raise InputError(group.place, "an empty query or passage", "Fill it or remove it.")
        if text != encodable(text):
            raise InputError(group.place, f"half a surrogate pair in {text[:40]!r}", "Mend the broken \\u escape.")


def _identity(group: Group) -> str:
    return f"id {group.query_id}" if group.query_id else f"text {group.query}"


def _rows(passages: Iterable[Passage], row_of: dict[tuple[str, str, str], int]) -> list[int]:
    return [row_of.setdefault((p.id, p.title, p.text), len(row_of)) for p in passages]


def _record(identifier, title, text, key, positives=(), negatives=(), relevant=(), scores=((), ())) -> dict[str, Any]:
    return {
        "id": identifier,
        "title": title,
        "text": text,
        "key": key,
        "positives": positives,
        "negatives": negatives,
        "relevant": relevant,
        "positive_scores": scores[0],
        "negative_scores": scores[1],
    }
