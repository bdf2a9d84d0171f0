"""Training groups in the files of BEIR, ColBERT, FlagEmbedding and Tevatron."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from jaxret.data.beir_rows import HEADER
from jaxret.data.groups import Group
from jaxret.data.text import passage_text
from jaxret.errors import InputError


def beir_lines(group: Group) -> Iterator[str]:
    """Rows of `negatives.tsv`, without its header: query id, document id, score with six decimals (0 where none)."""
    for passage in group.negatives:
        for name in (group.query_id, passage.id):
            if not name or any(sign in name for sign in "\t\r\n"):
                raise InputError("negatives", f"id {name!r} is empty or holds a tab", "Choose another layout or ids.")
        yield f"{group.query_id}\t{passage.id}\t{passage.score or 0.0:.6f}"


def colbert_lines(group: Group) -> Iterator[str]:
    """`[qid, pid+, pid-, ...]`, or `[qid, [pid, score], ...]` where all have scores: one line a positive.

    Ids that are whole numbers are written as numbers, which is what ColBERT reads.
    """
    for positive in group.positives:
        passages = (positive, *group.negatives)
        items = [[_number_or_name(p.id), p.score] if group.scored else _number_or_name(p.id) for p in passages]
        yield json.dumps([_number_or_name(group.query_id), *items], ensure_ascii=False)


def flagembedding_lines(group: Group) -> Iterator[str]:
    """`query`, `pos`, `neg` (title, space, text), and where all have scores `pos_scores` and `neg_scores`."""
    record: dict[str, Any] = {"query": group.query}
    sides = {"pos": group.positives, "neg": group.negatives}
    record |= {side: [passage_text(p.title, p.text, " ") for p in passages] for side, passages in sides.items()}
    if group.scored:
        record |= {f"{side}_scores": [p.score for p in passages] for side, passages in sides.items()}
    yield json.dumps(record, ensure_ascii=False)


def tevatron_lines(group: Group) -> Iterator[str]:
    """`query_id`, `query`, and `positive_passages` and `negative_passages` of `docid`, `title`, `text`; no scores."""

    def records(passages: Any) -> list[dict[str, str]]:
        return [{"docid": p.id, "title": p.title, "text": p.text} for p in passages]

    record = {
        "query_id": group.query_id,
        "query": group.query,
        "positive_passages": records(group.positives),
        "negative_passages": records(group.negatives),
    }
    yield json.dumps(record, ensure_ascii=False)


GROUP_LAYOUTS: dict[str, Callable[[Group], Iterator[str]]] = {
    "beir": beir_lines,
    "colbert": colbert_lines,
    "flagembedding": flagembedding_lines,
    "tevatron": tevatron_lines,
}
HEADERS = {"beir": "\t".join(HEADER)}


def _number_or_name(identifier: str) -> int | str:
    return (
        int(identifier)
        if identifier.isascii() and identifier.isdigit() and str(int(identifier)) == identifier
        else identifier
    )
