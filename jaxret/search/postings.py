"""Which document has which term how often, counted part after part of a corpus, with the parts' sums beside it.

BM25 weighs a term by its documents in the whole corpus, and a document by the mean length of all. A part's postings are
therefore counted first, and weighed once all parts are: neither needs more memory than a part.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from jaxret.data.mapped_texts import LazyTexts, mapped_texts, texts_written

FREQUENCIES = "frequencies"
PART_TERMS = 4_000_000  # terms of a part's texts, with repetitions: about 300 MB while it is counted


@dataclass(frozen=True)
class Postings:
    """One part; its rows are terms in ascending order, and a row's documents ascend.

    Attributes:
      terms: v terms.
      offsets: int64 [v + 1], where each term's documents lie in the arrays below.
      documents: int32 [total], from 0 within the part.
      counts: int32 [total], how often the document has the term.
      lengths: int32 [n], the terms of each document, with repetitions.
    """

    terms: LazyTexts
    offsets: np.ndarray
    documents: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def load(cls, folder: Path) -> Postings:
        """Reads a part that `count_postings` wrote."""
        arrays = (np.load(folder / f"{name}.npy", "r") for name in ("offsets", "documents", "counts", "lengths"))
        return cls(mapped_texts(folder / "terms"), *arrays)


def count_postings(texts: Iterable[str], terms_of: Callable[[str], list[str]], folder: Path) -> list[Path]:
    """Counts the terms of texts; each part of about PART_TERMS goes into a folder of its own, which are returned."""
    parts: list[Path] = []
    for documents in _parts(texts, terms_of):
        parts.append(folder / f"part-{len(parts):05d}")
        parts[-1].mkdir()
        _write(parts[-1], *documents)
    return parts


def sum_frequencies(parts: Sequence[Path]) -> None:
    """Writes for each part how many documents of all have each of its terms: int64 [v] in the file FREQUENCIES."""
    with ExitStack() as stack:
        files = [stack.enter_context(open(part / FREQUENCIES, "wb")) for part in parts]
        streams = [_documents_of(number, part) for number, part in enumerate(parts)]
        for _, same_term in groupby(heapq.merge(*streams), key=itemgetter(0)):
            found = list(same_term)
            total = sum(count for *_, count in found).to_bytes(8, "little")
            for _, number, _ in found:
                files[number].write(total)


def _documents_of(number: int, folder: Path) -> Iterator[tuple[str, int, int]]:
    """(term, part, the part's documents with it) in ascending order."""
    begin = 0
    for term, end in zip(mapped_texts(folder / "terms"), np.load(folder / "offsets.npy", "r")[1:], strict=True):
        yield term, number, int(end) - begin
        begin = int(end)


def _parts(
    texts: Iterable[str], terms_of: Callable[[str], list[str]]
) -> Iterator[tuple[dict[str, int], list[np.ndarray]]]:
    """Vocabularies, and each document's terms as numbers of it."""
    vocabulary: dict[str, int] = {}
    documents: list[np.ndarray] = []
    total = 0
    for text in texts:
        terms = terms_of(text)
        if documents and total + len(terms) > PART_TERMS:
            yield vocabulary, documents
            vocabulary, documents, total = {}, [], 0
        documents.append(np.array([vocabulary.setdefault(term, len(vocabulary)) for term in terms], np.int32))
        total += len(terms)
    yield vocabulary, documents


def _write(folder: Path, vocabulary: dict[str, int], documents: list[np.ndarray]) -> None:
    terms = sorted(vocabulary)
    with texts_written(folder / "terms") as append:
        for term in terms:
            append(term)
    rank = np.empty(len(terms), np.int64)
    rank[[vocabulary[term] for term in terms]] = np.arange(len(terms))
    lengths = np.array([len(document) for document in documents], np.int32)
    total = max(len(documents), 1)
    numbers = np.concatenate([np.zeros(0, np.int32), *documents])
    cells = rank[numbers] * total + np.repeat(np.arange(len(documents)), lengths)
    cells, counts = np.unique(cells, return_counts=True)
    rows, columns = np.divmod(cells, total)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(terms)))]).astype(np.int64)
    np.save(folder / "offsets.npy", offsets)
    np.save(folder / "documents.npy", columns.astype(np.int32))
    np.save(folder / "counts.npy", counts.astype(np.int32))
    np.save(folder / "lengths.npy", lengths)
