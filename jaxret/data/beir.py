"""A BEIR folder: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`, perhaps `negatives.tsv`; plain or `.gz`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from jaxret.data.beir_rows import Pair, Qrels, graded, grouped, scored, texts
from jaxret.data.corpus import Corpus, Queries, content_hash
from jaxret.data.rows import BadRows, RowError
from jaxret.data.stored_corpus import stored_corpus
from jaxret.errors import InputError
from jaxret.files import existing, existing_folder, sha256


def read_corpus(folder: str | Path, on_bad: str | BadRows = "raise") -> Corpus:
    """The documents of `corpus.jsonl`; a missing title is empty.

    Args:
      folder: the BEIR folder.
      on_bad: "raise" or "skip", or a BadRows to count into. A duplicate id always raises InputError.
    """
    path = existing(existing_folder(folder) / "corpus.jsonl")
    rows = list(texts(path, _policy(on_bad)))
    return Corpus([row.id for row in rows], [row.title for row in rows], [row.text for row in rows])


def read_queries(folder: str | Path, on_bad: str | BadRows = "raise") -> Queries:
    """The queries of `queries.jsonl`, every split together; arguments and errors as `read_corpus`."""
    path = existing(existing_folder(folder) / "queries.jsonl")
    rows = list(texts(path, _policy(on_bad)))
    return Queries([row.id for row in rows], [row.text for row in rows])


def read_qrels(folder: str | Path, split: str, on_bad: str | BadRows = "raise") -> Qrels:
    """The judgements of a split, {query id: {document id: grade}}; BeirFolder.qrels checks the ids as well."""
    path, bad = _qrels_path(Path(folder), split), _policy(on_bad)
    return grouped(path, graded(path, bad), bad)


class BeirFolder:
    """A BEIR folder whose parts are read, and their ids checked, when first asked for.

    Args:
      folder: its path; InputError where there is none.
      on_bad: what to do with bad rows, "raise" (InputError with file, line and field) or "skip" (see `skipped`).
        A row that names a skipped query or document is skipped too; one that names a missing id always raises.
      scratch: a folder for a corpus that shall not lie in memory, see `stored_corpus`; None keeps it in memory.
    """

    def __init__(self, folder: str | Path, on_bad: str = "raise", scratch: Path | None = None):
        self.path, self._scratch = existing_folder(folder), scratch
        self._bad_corpus, self._bad_queries, self._bad_pairs = BadRows(on_bad), BadRows(on_bad), BadRows(on_bad)
        self._qrels: dict[str, Qrels] = {}

    @cached_property
    def corpus(self) -> Corpus:
        """Its documents."""
        if self._scratch is not None:
            return stored_corpus(existing(self.path / "corpus.jsonl"), self._scratch, self._bad_corpus)
        return read_corpus(self.path, self._bad_corpus)

    @cached_property
    def queries(self) -> Queries:
        """Its queries, every split together."""
        return read_queries(self.path, self._bad_queries)

    @cached_property
    def splits(self) -> list[str]:
        """The names of its splits, sorted."""
        return _splits(self.path)

    def qrels(self, split: str) -> Qrels:
        """The judgements of a split; InputError (file:line) where one names a missing query or document."""
        if split not in self._qrels:
            path = _qrels_path(self.path, split)
            self._qrels[split] = grouped(path, self._linked(path, graded(path, self._bad_pairs)), self._bad_pairs)
        return self._qrels[split]

    @cached_property
    def negatives(self) -> dict[str, list[str]]:
        """Hard negatives, {query id: document ids in file order}; empty where there is no `negatives.tsv`.

        Errors as `qrels`; a row whose document is relevant to its query in any split is a bad row.
        """
        path = _present(self.path / "negatives.tsv")
        if path is None:
            return {}
        rows = self._irrelevant(path, self._linked(path, scored(path, self._bad_pairs)))
        return {query: list(documents) for query, documents in grouped(path, rows, self._bad_pairs).items()}

    def validated(self, split: str) -> BeirFolder:
        """The folder itself, after everything that `split` needs was read and checked."""
        self.qrels(split)
        _ = self.negatives
        return self

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of its files: any change of a file changes it."""
        names = ["corpus.jsonl", "queries.jsonl", "negatives.tsv", *(f"qrels/{split}.tsv" for split in self.splits)]
        files = [file for name in names if (file := _present(self.path / name))]
        return content_hash((str(file.relative_to(self.path)), sha256(file)) for file in files)

    @property
    def skipped(self) -> dict[str, int]:
        """Rows left out so far under "skip", {"file: reason": count}."""
        return dict(self._bad_corpus.counts + self._bad_queries.counts + self._bad_pairs.counts)

    def _linked(self, path: Path, pairs: Iterable[Pair]) -> Iterator[Pair]:
        queries, documents = self.queries.row_of, self.corpus.row_of
        for line, query, document, score in pairs:
            try:
                _check_known(f"{path}:{line}", "query-id", query, queries, self._bad_queries.dropped)
                _check_known(f"{path}:{line}", "corpus-id", document, documents, self._bad_corpus.dropped)
                yield line, query, document, score
            except RowError as error:
                self._bad_pairs.add(path, line, error)

    def _irrelevant(self, path: Path, pairs: Iterable[Pair]) -> Iterator[Pair]:
        relevant = [self.qrels(split) for split in self.splits]
        for line, query, document, score in pairs:
            if any(qrels.get(query, {}).get(document, 0) > 0 for qrels in relevant):
                reason = '"corpus-id" is a negative and relevant to the query in qrels'
                self._bad_pairs.add(path, line, RowError(reason, "Remove the line.", (query, document)))
            else:
                yield line, query, document, score


def _check_known(place: str, field: str, identifier: str, rows: Mapping[str, int], dropped: set[str]) -> None:
    if identifier in dropped:
        raise RowError(f'"{field}" names a skipped row', "Mend that row.", identifier)
    if identifier not in rows:
        file = "queries.jsonl" if field == "query-id" else "corpus.jsonl"
        raise InputError(place, f'"{field}" {identifier!r} is not in {file}', f"Remove the line or add it to {file}.")


def _present(path: Path) -> Path | None:
    return next((file for file in (path, path.with_name(f"{path.name}.gz")) if file.is_file()), None)


def _splits(folder: Path) -> list[str]:
    names = {file.name.removesuffix(".gz") for file in (folder / "qrels").glob("*.tsv*")}
    return sorted(name.removesuffix(".tsv") for name in names if name.endswith(".tsv"))


def _qrels_path(folder: Path, split: str) -> Path:
    path = _present(existing_folder(folder) / "qrels" / f"{split}.tsv")
    if path is None:
        splits = ", ".join(_splits(folder)) or "none"
        raise InputError(folder, f"no split {split!r}", f"Splits here: {splits} (files qrels/<split>.tsv).")
    return path


def _policy(on_bad: str | BadRows) -> BadRows:
    return on_bad if isinstance(on_bad, BadRows) else BadRows(on_bad)
