"""Everything a search needs in one folder: vectors, BM25, documents, and which model made them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxret.data.corpus import Corpus
from jaxret.errors import InputError
from jaxret.files import atomic, existing_folder, open_text, read_json, write_json
from jaxret.search.bm25 import BM25
from jaxret.search.corpus import encode_corpus, open_store, passage_texts
from jaxret.search.encode import TextEncoder
from jaxret.search.plaid.build import PlaidSettings, build_plaid
from jaxret.search.plaid.codec import check_packing

DESCRIPTION, DOCUMENTS, VECTORS, LEXICON, PLAID = "index.json", "documents.jsonl", "vectors", "bm25", "plaid"


@dataclass(frozen=True)
class Document:
    """One document of an index."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Index:
    """A complete index folder.

    Attributes:
      folder: where it is.
      workdir, step: the model and its checkpoint.
      language: of BM25's analyser.
      documents: in the order of the vectors.
      bm25: the lexical index.
    """

    folder: Path
    workdir: Path
    step: int | None
    language: str
    documents: list[Document]
    bm25: BM25

    @property
    def vectors(self) -> Path:
        """The store of vectors."""
        return self.folder / VECTORS

    @property
    def plaid(self) -> Path:
        """The compressed token vectors; raises InputError where there are none."""
        if not (self.folder / PLAID).is_dir():
            raise InputError(self.folder, "has no compressed vectors", "Make them: jaxret index --nbits 2.")
        return self.folder / PLAID


def build_index(
    folder: str | Path,
    encoder: TextEncoder,
    workdir: Path,
    step: int | None,
    corpus: Corpus,
    language: str,
    progress: Callable[[int], None] | None = None,
    analyzer_name: str | None = None,
    dtype: str = "float32",
    compression: PlaidSettings | None = None,
) -> Path:
    """Makes an index; finished parts of a killed run are kept. The description is written last.

    Args:
      folder: where it will be.
      encoder: the model.
      workdir, step: where the model comes from.
      corpus: the documents.
      language, analyzer_name: of BM25.
      progress: hears how many more documents are encoded.
      dtype: of the stored vectors, see `encode_corpus`.
      compression: of compressed token vectors, which are made besides; None for none.

    Raises:
      InputError: the vectors cannot be compressed so, or the folder holds the index of another model or corpus.
    """
    folder = Path(folder)
    if compression is not None:
        if "multi_vector" not in encoder.model.config.heads:
            raise InputError("nbits", "the model makes no token vectors", "Leave it out, or use another model.")
        check_packing(encoder.model.config.token_width, compression.nbits)
    encode_corpus(encoder, corpus, folder / VECTORS, progress, dtype)
    if compression is not None:
        stored = open_store(folder / VECTORS, encoder, corpus)
        build_plaid(stored, folder / PLAID, compression, source=stored.manifest["model"] + corpus.fingerprint)
    BM25.write(folder / LEXICON, passage_texts(corpus, " "), language, analyzer_name)
    with atomic(folder / DOCUMENTS) as file:
        for row in corpus.by_id[::-1].tolist():
            record = {"_id": corpus.ids[row], "title": corpus.titles[row], "text": corpus.texts[row]}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    write_json(folder / DESCRIPTION, {"model": str(workdir.absolute()), "step": step, "language": language})
    return folder


def read_description(folder: str | Path) -> tuple[Path, int | None, str]:
    """The model, its checkpoint and BM25's language of an index; raises InputError where it is incomplete."""
    folder = existing_folder(folder)
    if not (folder / DESCRIPTION).exists():
        raise InputError(folder, "is no complete index", "Make one with jaxret index.")
    record = read_json(folder / DESCRIPTION)
    return Path(record["model"]), record["step"], record["language"]


def load_index(folder: str | Path) -> Index:
    """Reads an index; raises InputError where it is incomplete."""
    folder, (model, step, language) = Path(folder), read_description(folder)
    with open_text(folder / DOCUMENTS) as file:
        rows = [json.loads(line) for line in file]
    documents = [Document(row["_id"], row["title"], row["text"]) for row in rows]
    bm25 = BM25.load(folder / LEXICON)
    return Index(folder, model, step, language, documents, bm25)
