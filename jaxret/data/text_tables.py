"""Running text as tables: documents for pairs of sentences, texts packed up to a length, and rows of such texts."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter

from jaxret.data.group_tables import passage_key
from jaxret.data.perturbation import units
from jaxret.data.running_text import TextSource
from jaxret.data.sentences import joined
from jaxret.data.tables import Column, Content
from jaxret.data.tensorflow_cpu import tf
from jaxret.errors import InputError

DOCUMENTS = {"sentences": Column(tf.string, many=True), "key": Column(tf.int64)}
TEXTS = {"text": Column(tf.string)}
ROWS = {"texts": Column(tf.string, many=True)}
OPEN = 64  # rows that are filled at a time
Encode = Callable[[Sequence[str]], list[list[int]]]


def document_tables(source: TextSource) -> Content:
    """`documents` of two or more sentences, with a key that equal documents share; the fact `alone` counts the others.

    Raises:
      InputError: no document is left, or the text cannot be read.
    """
    records, alone = [], 0
    for document in source.documents():
        if len(document) > 1:
            records.append({"sentences": document, "key": passage_key("", joined(document))})
        else:
            alone += 1
    if not records:
        fix = "Write a sentence a line, and a blank line between documents."
        raise InputError(source.path, "no document has two sentences", fix)
    return Content({"documents": records}, {"alone": alone})


def packed_tables(source: TextSource, encode: Encode, room: int) -> Content:
    """`texts`: each document's sentences, as many together as have at most `room` ids, each sentence encoded alone.

    A sentence that has more is halved, between words where there are any, until its parts fit.

    Raises:
      InputError: there is no text, or it cannot be read.
    """
    texts = [joined(pack) for document in source.documents() for pack in _packs(document, encode, room)]
    return Content({"texts": [{"text": text} for text in texts]})


def filled_rows(texts: Iterable[str], lengths: Iterable[int], length: int) -> Content:
    """`rows`: texts of at most `length` ids, as many together as fit, each where it leaves the least room.

    Of so many rows that are open the fullest is closed for a new one.
    """
    return Content({"rows": ({"texts": row} for row in _rows(texts, lengths, length))})


def _rows(texts: Iterable[str], lengths: Iterable[int], length: int) -> Iterator[list[str]]:
    rows: list[tuple[int, list[str]]] = []  # room and texts, the fullest first
    for text, size in zip(texts, lengths, strict=True):
        place = next((i for i, (room, _) in enumerate(rows) if room >= size), None)
        room, row = (length, []) if place is None else rows.pop(place)
        if len(rows) == OPEN:
            yield rows.pop(0)[1]
        insort(rows, (room - size, [*row, text]), key=itemgetter(0))
    yield from (row for _, row in rows)


def _packs(document: list[str], encode: Encode, room: int) -> Iterator[list[str]]:
    pack: list[str] = []
    free = room
    for part, length in _fitting(document, encode, room):
        if pack and length > free:
            yield pack
            pack, free = [], room
        pack.append(part)
        free -= length
    if pack:
        yield pack


def _fitting(sentences: list[str], encode: Encode, room: int) -> Iterator[tuple[str, int]]:
    for sentence, ids in zip(sentences, encode(sentences), strict=True):
        parts, joint = units(sentence)
        if len(ids) <= room or len(parts) == 1:
            yield sentence, len(ids)
        else:
            middle = len(parts) // 2
            yield from _fitting([joint.join(parts[:middle]), joint.join(parts[middle:])], encode, room)
