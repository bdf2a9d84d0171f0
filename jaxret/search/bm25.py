"""BM25 (Lucene's formula) through the bm25s package: a corpus is indexed once, queries get their best documents.

A term t that occurs f times in a document of n terms adds ln(1 + (N - df + .5) / (df + .5)) * f / (f + k1 * (1 - b +
b * n / mean n)), for each time that the query has it (Kamphuis et al. 2020).
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.errors import InputError
from jaxret.files import atomic_folder, existing_folder, read_json, write_json
from jaxret.runtime.checksums import SUMS, damaged, seal
from jaxret.search.analyzers import Analyzer, analyzer
from jaxret.search.postings import FREQUENCIES, Postings, count_postings, sum_frequencies
from jaxret.search.top_k import NOTHING, TopK

_SETTINGS = "settings.json"
AGAIN = "Index the corpus again."


@dataclass(frozen=True)
class BM25Settings:
    """How an index was made; everything that a manifest says of it.

    Attributes:
      language: as `analyzer` takes it.
      k1, b: of the formula, by default as in Anserini's baselines.
      analyzer: its name.
      versions: of the packages and rules that the analyser's terms depend on.
    """

    language: str
    k1: float = 0.9
    b: float = 0.4
    analyzer: str = "words"
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, analyzer: Analyzer, language: str, k1: float, b: float) -> BM25Settings:
        """The settings of an index that is to be made with an analyser."""
        return cls(language, k1, b, analyzer.name, analyzer.versions)

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> BM25Settings:
        """The settings in the file of an index."""
        return cls(*(record[name] for name in ("language", "k1", "b", "analyzer", "versions")))


@dataclass(frozen=True, eq=False)
class BM25:
    """An index over texts, in parts; positions are those of the texts it was built from.

    Attributes:
      settings: of the analyser and the formula.
      analyzer: what made the terms of the texts, and makes those of queries.
      starts: int64 [p + 1]: the position of each part's first text, and the number of all.
    """

    settings: BM25Settings
    analyzer: Analyzer
    starts: np.ndarray
    _part: Callable[[int], Any]

    @property
    def num_documents(self) -> int:
        """The number of texts."""
        return int(self.starts[-1])

    @classmethod
    def build(
        cls,
        texts: Sequence[str],
        language: str,
        analyzer_name: str | None = None,
        *,
        k1: float = 0.9,
        b: float = 0.4,
    ) -> BM25:
        """Indexes texts, in memory; the same answers as from files.

        Args:
          texts: the documents; the earlier one wins a tie, so give them in descending order of ids.
          language, analyzer_name: as `analyzer` takes them.
          k1, b: of the formula.

        Raises:
          InputError: no such language code or analyser, no texts, or no term in any of them.
        """
        terms_of = analyzer(language, analyzer_name)
        settings = BM25Settings.of(terms_of, language, k1, b)
        with tempfile.TemporaryDirectory() as scratch:
            parts = list(_weighed(texts, terms_of, settings, Path(scratch)))
        return cls(settings, terms_of, _starts(part.scores["num_docs"] for part in parts), parts.__getitem__)

    @classmethod
    def write(
        cls,
        folder: str | Path,
        texts: Sequence[str],
        language: str,
        analyzer_name: str | None = None,
        *,
        k1: float = 0.9,
        b: float = 0.4,
    ) -> None:
        """Indexes texts into a folder, whole or not at all; an older index there is replaced.

        One part is in memory at a time. Arguments and errors as `build`.
        """
        terms_of = analyzer(language, analyzer_name)
        settings, sizes = BM25Settings.of(terms_of, language, k1, b), []
        with atomic_folder(folder) as temporary:
            with tempfile.TemporaryDirectory(dir=temporary) as scratch:
                for number, part in enumerate(_weighed(texts, terms_of, settings, Path(scratch))):
                    part.save(_part_folder(temporary, number), show_progress=False)
                    sizes.append(part.scores["num_docs"])
            write_json(temporary / _SETTINGS, {**asdict(settings), "method": "lucene", "documents": sizes})
            seal(temporary)

    @classmethod
    def load(cls, folder: str | Path, parts_held: int | None = None) -> BM25:
        """Opens what `write` wrote, with the analyser that made it.

        Args:
          folder: where it lies.
          parts_held: parts whose terms stay in memory; by default all that were needed so far.

        Raises:
          InputError: a file is missing or damaged (those of a part are compared with their checksums when it is first
            needed), or a package that its terms depend on is missing or has another version.
        """
        folder = existing_folder(folder)
        checked = lru_cache(maxsize=None)(partial(_checked, folder))
        checked(_SETTINGS)
        record = read_json(folder / _SETTINGS)

        def part(number: int) -> Any:
            checked(_part_folder(folder, number).name)
            try:
                return _bm25s().BM25.load(_part_folder(folder, number), mmap=True, show_progress=False)
            except (OSError, ValueError, KeyError, EOFError) as error:
                raise _broken(folder, error) from None

        try:
            settings = BM25Settings.read(record)
            starts = _starts(map(int, record["documents"]))
        except (ValueError, KeyError, TypeError) as error:
            raise _broken(folder, error) from None
        return cls(settings, _same_analyzer(folder, settings), starts, lru_cache(parts_held)(part))

    def top_k(
        self, queries: Sequence[str], k: int, progress: Callable[[int], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best documents of each query: scores float32 [q k], positions int64 [q k], best first.

        Equal scores come in ascending order of positions. A document without a term of the query is no result: slots
        that stay empty have score 0 and position -1, all of them for a query without a known term. `progress` hears how
        many more documents are scored.

        Raises:
          InputError: `k` is not within 1 and the size of the corpus.
        """
        if not 1 <= k <= self.num_documents:
            problem = f"{k} results of a corpus of {self.num_documents} documents"
            raise InputError("k", problem, f"Give 1 to {self.num_documents}.")
        best = TopK(len(queries), k)
        terms = self._terms(queries)
        for number, (start, stop) in enumerate(pairwise(self.starts.tolist())):
            part, depth = self._part(number), min(k, stop - start)
            scores = np.zeros((len(queries), depth), np.float32)
            positions = np.full((len(queries), depth), NOTHING, np.int64)
            for row, query in enumerate(terms):
                if known := part.get_tokens_ids(query):
                    values, found = _best(part.get_scores_from_ids(known), depth)
                    scores[row, : len(values)], positions[row, : len(values)] = values, found + start
            best.add(scores, positions)
            if progress:
                progress(stop - start)
        return best.scores, best.positions

    def scores(self, queries: Sequence[str], positions: Sequence[int]) -> np.ndarray:
        """float32 [n]: the score of the document at each position for the query beside it; 0 without a common term."""
        places, terms = np.asarray(positions, np.int64), self._terms(queries)
        numbers = np.searchsorted(self.starts, places, side="right") - 1
        scores = np.zeros(len(places), np.float32)
        for number in np.unique(numbers).tolist():
            part, start = self._part(number), self.starts[number]
            rows = np.flatnonzero(numbers == number).tolist()
            for _, group in groupby(rows, key=queries.__getitem__):
                same = list(group)
                if known := part.get_tokens_ids(terms[same[0]]):
                    scores[same] = part.get_scores_from_ids(known)[places[same] - start]
        return scores

    def _terms(self, queries: Sequence[str]) -> list[list[str]]:
        terms_of = lru_cache(maxsize=1)(self.analyzer)  # the pairs of a query come together
        return [terms_of(query) for query in queries]


def _same_analyzer(folder: Path, settings: BM25Settings) -> Analyzer:
    """The analyser that the settings name; InputError where its terms may be others now."""
    found = analyzer(settings.language, settings.analyzer)
    for name, number in settings.versions.items():
        if found.versions.get(name) != number:
            problem = f"was made with {name} {number}, and here is {found.versions.get(name)}"
            raise InputError(folder, problem, "Index the corpus again, or install that version.")
    return found


def _weighed(texts: Sequence[str], terms_of: Analyzer, settings: BM25Settings, scratch: Path) -> Iterator[Any]:
    """The parts of an index, one at a time, with the statistics of all texts; `scratch` is filled on the way."""
    folders = count_postings(texts, terms_of, scratch)
    terms = sum(int(Postings.load(folder).lengths.sum(dtype=np.int64)) for folder in folders)
    if not terms:
        raise InputError("corpus", f"none of its {len(texts)} texts has a word", "Give texts to index.")
    sum_frequencies(folders)
    for folder in folders:
        frequency = np.fromfile(folder / FREQUENCIES, "<i8")
        yield _part_index(Postings.load(folder), frequency, len(texts), np.float64(terms) / len(texts), settings)


def _part_index(part: Postings, frequency: np.ndarray, total: int, mean: np.float64, settings: BM25Settings) -> Any:
    """One part as an index of the package, which weighs terms by its own texts alone if it is let.

    Args:
      part: its postings.
      frequency: [v] documents with each term, among all texts.
      total: all texts.
      mean: terms of a text.
      settings: of the formula.
    """
    weight = np.log(1 + (total - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
    length = settings.k1 * ((1 - settings.b) + settings.b * part.lengths / mean)
    counts = part.counts.astype(np.float64)
    share = counts / (length[part.documents] + counts)
    scores = {
        "data": (np.repeat(weight, np.diff(part.offsets)) * share).astype(np.float32),
        "indices": np.array(part.documents),
        "indptr": np.array(part.offsets),
        "num_docs": len(part.lengths),
    }
    vocabulary = {term: row for row, term in enumerate(part.terms)}
    index = _bm25s().BM25(k1=settings.k1, b=settings.b, method="lucene", backend="numpy")
    index.build_index_from_ids = lambda **_: scores
    index.index(([], vocabulary), create_empty_token=False, show_progress=False)
    index.nonoccurrence_array = None
    return index


def _part_folder(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}"


def _checked(folder: Path, part: str) -> None:
    """InputError for a file of a part (or for one file) that is missing or is not what was written."""
    if not (folder / SUMS).exists():
        raise InputError(folder / SUMS, "no such file (or the index is of an older format)", AGAIN)
    if bad := damaged(folder, [part]):
        raise InputError(bad, "missing or damaged (its checksum differs)", AGAIN)


def _starts(sizes: Iterable[int]) -> np.ndarray:
    return np.cumsum([0, *sizes]).astype(np.int64)


def _broken(folder: Path, error: Exception) -> InputError:
    return InputError(folder, f"is no whole BM25 index ({error!r})", AGAIN)


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest of the scores above 0, and their positions; of equal ones the earlier position first."""
    positions = np.flatnonzero(scores)
    if len(positions) > k:
        positions = positions[scores[positions] >= np.partition(scores[positions], -k)[-k]]
    order = np.argsort(-scores[positions], kind="stable")[:k]
    return scores[positions[order]], positions[order]


def _bm25s() -> Any:
    """The package, imported when first used, and without JAX.

    It would run `jax.lax.top_k` while it is imported: 0.3 s, and devices taken before the program has set them up.
    """
    if "bm25s" not in sys.modules:
        modules: dict[str, Any] = sys.modules
        jax = modules.get("jax")
        modules["jax"] = None
        try:
            importlib.import_module("bm25s")
        finally:
            if jax is None:
                del modules["jax"]
            else:
                modules["jax"] = jax
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
    return sys.modules["bm25s"]
