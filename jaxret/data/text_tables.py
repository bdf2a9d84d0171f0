"""Running text as tables: documents for pairs of sentences, and texts packed up to a length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from jaxret.data.group_tables import passage_key
from jaxret.data.perturbation import units
from jaxret.data.running_text import TextSource
from jaxret.data.sentences import joined
from jaxret.data.tables import Column, Content
from jaxret.data.tensorflow_cpu import tf
from jaxret.errors import InputError

DOCUMENTS = {"sentences": Column(tf.string, many=True), "key": Column(tf.int64)}
TEXTS = {"text": Column(tf.string)}
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
