"""Everything a search needs in one folder: vectors, BM25, documents, and which model made them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxret.data.corpus import Corpus
from jaxret.errors import InputError
from jaxret.files import existing_folder, read_json, write_json
from jaxret.runtime.checksums import with_checksum, without_checksum
from jaxret.search.bm25 import BM25
from jaxret.search.copying import copy_store
from jaxret.search.corpus import encode_corpus, open_store, passage_texts
from jaxret.search.documents import AGAIN, Document, Documents, write_documents
from jaxret.search.encode import TextEncoder
from jaxret.search.plaid.build import PlaidSettings, build_plaid
from jaxret.search.plaid.codec import check_packing
from jaxret.search.store import StoredVectors

DESCRIPTION, VECTORS, LEXICON, PLAID = "index.json", "vectors", "bm25", "plaid"
FORMAT = 2

# What is done and how much of it there is, to the context of a function that hears how much more is done.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Description:
    """What `index.json` says.

    Attributes:
      model, step: the model's folder and its checkpoint.
      language: of BM25's analyser.
      corpus: the fingerprint of the documents.
      offsets: see `Documents`.
    """

    model: Path
    step: int | None
    language: str
    corpus: str
    offsets: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"format": FORMAT, **vars(self), "model": str(self.model)}


@dataclass(frozen=True)
class Index:
    """A complete index folder.

    Attributes:
      folder: where it is.
      description: the model and the corpus.
      documents: in the order of the vectors.
      bm25: the lexical index.
    """

    folder: Path
    description: Description
    documents: Documents
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
    progress: Progress | None = None,
    analyzer_name: str | None = None,
    dtype: str = "float32",
    compression: PlaidSettings | None = None,
    vectors: str | Path | None = None,
) -> Path:
    """Makes an index; finished parts of a killed run are kept. The description is written last.

    Args:
      folder: where it will be.
      encoder: the model.
      workdir, step: where the model comes from.
      corpus: the documents.
      language, analyzer_name: of BM25.
      progress: of the documents that are encoded, and of those that are compressed.
      dtype: of the stored vectors, see `encode_corpus`.
      compression: of compressed token vectors, which are made besides; None for none.
      vectors: a complete store of the same, which is copied (see `copy_store`); None to encode the corpus.

    Raises:
      InputError: the vectors cannot be compressed so, or are of another model or corpus, as the folder's may be.
    """
    folder = Path(folder)
    if compression is not None:
        if "multi_vector" not in encoder.model.config.heads:
            raise InputError("nbits", "the model makes no token vectors", "Leave it out, or use another model.")
        check_packing(encoder.model.config.token_width, compression.nbits)
    with progress("copy" if vectors else "encode", len(corpus)) if progress else nullcontext() as advance:
        if vectors:
            copy_store(vectors, folder / VECTORS, encoder, corpus, advance)
        else:
            encode_corpus(encoder, corpus, folder / VECTORS, advance, dtype)
    if compression is not None:
        stored = open_store(folder / VECTORS, encoder, corpus)
        with progress("compress", len(corpus)) if progress else nullcontext() as advance:
            build_plaid(stored, folder / PLAID, compression, source=source(stored), progress=advance)
    BM25.write(folder / LEXICON, passage_texts(corpus, " "), language, analyzer_name)
    rows = map(int, corpus.by_id[::-1])
    documents = (Document(corpus.ids[row], corpus.titles[row], corpus.texts[row]) for row in rows)
    offsets = write_documents(folder, documents, len(corpus))
    description = Description(workdir.absolute(), step, language, corpus.fingerprint, offsets)
    write_json(folder / DESCRIPTION, with_checksum(description.to_dict()))
    return folder


def source(stored: StoredVectors) -> str:
    """What compressed vectors say of the store that they were made from: its model and its corpus."""
    return stored.manifest["model"] + stored.manifest["corpus"]


def read_description(folder: str | Path) -> Description:
    """What an index was made of; raises InputError where it is incomplete, damaged or of an older format."""
    file = existing_folder(folder) / DESCRIPTION
    if not file.exists():
        raise InputError(file, "no such file: the folder is no complete index", "Make one with jaxret index.")
    record = read_json(file)
    found = record.pop("format", 1)
    if found != FORMAT:
        raise InputError(file, f"format {found}, not {FORMAT}", f"{AGAIN} It keeps the vectors.")
    bare = without_checksum({"format": found, **record})
    if bare is None:
        raise InputError(file, "damaged (its checksum differs)", AGAIN)
    return Description(Path(bare["model"]), bare["step"], bare["language"], bare["corpus"], bare["offsets"])


def load_index(folder: str | Path, parts_held: int | None = None) -> Index:
    """Opens an index.

    Args:
      folder: where it is.
      parts_held: of BM25, see `BM25.load`.

    Raises:
      InputError: it is incomplete or of an older format; or, of what is read at once, a file is missing or damaged.
    """
    folder, description = Path(folder), read_description(folder)
    documents, bm25 = Documents(folder, description.offsets), BM25.load(folder / LEXICON, parts_held)
    if bm25.num_documents != len(documents):
        problem = f"holds {bm25.num_documents} documents, and the index {len(documents)}"
        raise InputError(folder / LEXICON, problem, AGAIN)
    return Index(folder, description, documents, bm25)
