"""A BEIR corpus as an encoded store: made shard by shard, continued where it stopped, refused where it does not fit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxret.data.corpus import Corpus
from jaxret.data.mapped_texts import LazyTexts
from jaxret.data.stored_corpus import SortedIds
from jaxret.data.text import passage_text
from jaxret.errors import InputError
from jaxret.runtime.heap import give_back
from jaxret.runtime.processes import meet
from jaxret.search.budget import part_bytes
from jaxret.search.cross_encoder import CrossEncoder
from jaxret.search.dtypes import check_dtype, stored_as
from jaxret.search.encode import TextEncoder
from jaxret.search.folder import Folder, json_bytes
from jaxret.search.store import (
    MANIFEST,
    SHARD_DOCUMENTS,
    StoredVectors,
    has_shard,
    seal,
    shard_bounds,
    write_shard,
)
from jaxret.search.vectors import Vectors, check_finite

CLAIM = "claim.json"
ID_BYTES = 40  # of a token's id, in a list


def in_store_order(corpus: Corpus, text_of: Callable[[int], str]) -> LazyTexts:
    """A text of each row of a corpus, made when it is asked for, in the order of a store.

    That is the descending order of ids: "lower position first" is then trec_eval's rule for ties.
    """
    rows = corpus.by_id[::-1]
    return LazyTexts(len(rows), lambda position: text_of(int(rows[position])))


def store_ids(corpus: Corpus) -> LazyTexts:
    """Ids of every document, in the order of a store."""
    return in_store_order(corpus, corpus.ids.__getitem__)


def store_positions(corpus: Corpus) -> SortedIds:
    """From the id of a document to its position in a store."""
    return SortedIds(corpus.ids, corpus.by_id, range(len(corpus) - 1, -1, -1))


def passage_texts(corpus: Corpus, separator: str) -> LazyTexts:
    """Title and text of every document, in the order of a store."""
    return in_store_order(corpus, lambda row: passage_text(corpus.titles[row], corpus.texts[row], separator))


def model_fingerprint(encoder: TextEncoder | CrossEncoder) -> str:
    """SHA-256 over configuration, text template, vocabulary and parameters."""
    model = encoder.model
    digest = hashlib.sha256(json.dumps([dataclasses.asdict(model.config), model.text.to_dict()]).encode())
    digest.update(model.tokenizer.fingerprint.encode())
    for path, value in jax.tree_util.tree_leaves_with_path(encoder.params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(jax.device_get(value)).tobytes())
    return digest.hexdigest()


def identity(encoder: TextEncoder, corpus: Corpus) -> dict[str, Any]:
    """What a store must match: the model, the text template and the corpus."""
    return {
        "model": model_fingerprint(encoder),
        "corpus": corpus.fingerprint,
        "documents": len(corpus),
        "text": encoder.model.text.to_dict(),
    }


def encode_corpus(
    encoder: TextEncoder,
    corpus: Corpus,
    store: str | Path,
    progress: Callable[[int], None] | None = None,
    dtype: str = "float32",
    shard_documents: int | None = None,
) -> str:
    """Encodes the corpus into `store`; finished shards are kept, so a killed run continues.

    Of several processes each encodes every so many-th shard, on a mesh of its own devices; all of them make this call.

    Args:
      encoder: the model.
      corpus: the documents.
      store: a folder, or a bucket's URL.
      progress: hears how many more documents are there.
      dtype: of dense vectors and tokens: "float32", "bfloat16" or "int8".
      shard_documents: how many are in memory at a time; 8192 by default.

    Raises:
      InputError: the store was begun with another model, corpus or dtype.
    """
    check_dtype(dtype)
    shard_documents = shard_documents or SHARD_DOCUMENTS
    folder, process, processes = Folder(store), jax.process_index(), jax.process_count()
    claim = identity(encoder, corpus) | {"dtype": dtype, "shard_documents": shard_documents}
    if process == 0:
        folder.create(CLAIM, json_bytes(claim))
    meet("the store is begun")
    check_identity(folder.path(CLAIM), folder.read_json(CLAIM), claim)
    texts, ids = passage_texts(corpus, encoder.model.text.title_separator), store_ids(corpus)
    bounds = list(shard_bounds(len(texts), shard_documents))
    for number, (start, stop) in list(enumerate(bounds))[process::processes]:
        if not has_shard(folder, number):
            write_shard(
                folder, number, ids[start:stop], stored_as(encoder.passages(texts[start:stop], progress), dtype)
            )
            give_back()  # the lists of one shard leave holes that arrays of the next do not fit
        elif progress:
            progress(stop - start)
    meet("every shard is written")
    if process == 0 and folder.read(MANIFEST) is None:
        seal(folder, len(bounds), claim)
    meet("the store is complete")
    return folder.place


def affordable_documents(encoder: TextEncoder, budget_gb: float | int) -> int:
    """How many documents may be encoded at a time, `SHARD_DOCUMENTS` at most.

    Args:
      encoder: the model.
      budget_gb: what the process may hold, in GB.

    Raises:
      InputError: nothing would be left.
    """
    config, length = encoder.model.config, encoder.model.text.passage_max_len
    terms = length if config.lm_head is None else config.encoder.vocab_size
    numbers = {"dense": config.dense_width, "lexical": 2 * terms, "multi_vector": length * config.token_width}
    largest = ID_BYTES * length + 4 * sum(numbers[head] for head in config.heads)
    room = part_bytes(budget_gb, 0, "encode the corpus before, with jaxret encode")
    return max(1, min(SHARD_DOCUMENTS, room // largest))


def open_store(store: str | Path, encoder: TextEncoder, corpus: Corpus | None = None) -> StoredVectors:
    """A store, after making sure that this model made it, and of this corpus where one is given."""
    wanted = {"model": model_fingerprint(encoder)} if corpus is None else identity(encoder, corpus)
    opened = StoredVectors(store)
    check_identity(f"{opened.place}/{MANIFEST}", opened.manifest, wanted)
    return opened


def check_identity(place: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises InputError where a store's facts differ from those wanted."""
    different = [name for name, value in wanted.items() if found.get(name) != value]
    if different:
        problem = f"made with another {' and another '.join(different)}"
        raise InputError(place, problem, "Encode the corpus again, into a new folder.")


def encoded_now(
    encoder: TextEncoder, corpus: Corpus, progress: Callable[[int], None] | None = None
) -> tuple[list[str], Vectors]:
    """Ids and vectors of a corpus, in the order of a store, without writing one."""
    texts, ids = passage_texts(corpus, encoder.model.text.title_separator), list(store_ids(corpus))
    vectors = encoder.passages(list(texts), progress)
    check_finite(vectors, "document", ids)
    return ids, vectors
