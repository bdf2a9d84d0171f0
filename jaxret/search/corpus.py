"""A BEIR corpus as an encoded store: made shard by shard, continued where it stopped, refused where it does not fit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
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
from jaxret.files import read_json, write_json
from jaxret.search.cross_encoder import CrossEncoder
from jaxret.search.encode import TextEncoder
from jaxret.search.store import MANIFEST, read_manifest, read_vectors, seal, shard_bounds, shard_folder, write_shard
from jaxret.search.vectors import Vectors

CLAIM = "claim.json"


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
    encoder: TextEncoder, corpus: Corpus, store: str | Path, progress: Callable[[int], None] | None = None
) -> Path:
    """Encodes the corpus into `store`; finished shards are kept, so a killed run continues.

    Raises:
      InputError: the store was begun with another model or another corpus.
    """
    store, claim = Path(store), identity(encoder, corpus)
    if (store / CLAIM).exists():
        check_identity(store / CLAIM, read_json(store / CLAIM), claim)
    else:
        write_json(store / CLAIM, claim)
    for leftover in store.glob(".shard-*"):
        shutil.rmtree(leftover)
    texts = passage_texts(corpus, encoder.model.text.title_separator)
    for number, (start, stop) in enumerate(shard_bounds(len(texts))):
        if shard_folder(store, number).exists():
            if progress:
                progress(stop - start)
        else:
            write_shard(store, number, encoder.passages(texts[start:stop], progress))
    if not (store / MANIFEST).exists():
        seal(store, store_ids(corpus), claim)
    return store


def open_store(store: str | Path, encoder: TextEncoder, corpus: Corpus | None = None) -> tuple[list[str], Vectors]:
    """Ids and vectors of a store, after making sure that this model made it, and of this corpus where one is given."""
    wanted = {"model": model_fingerprint(encoder)} if corpus is None else identity(encoder, corpus)
    check_identity(Path(store) / MANIFEST, read_manifest(store), wanted)
    ids, vectors, _ = read_vectors(store)
    return ids, vectors


def check_identity(place: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises InputError where a store's facts differ from those wanted."""
    different = [name for name, value in wanted.items() if found.get(name) != value]
    if different:
        problem = f"made with another {' and another '.join(different)}"
        raise InputError(place, problem, "Encode the corpus again, into a new folder.")


def encoded_now(
    encoder: TextEncoder, corpus: Corpus, progress: Callable[[int], None] | None = None
) -> tuple[list[str], Vectors]:
    """Ids and vectors of a corpus, in the order of a store, without writing one."""
    texts = passage_texts(corpus, encoder.model.text.title_separator)
    return list(store_ids(corpus)), encoder.passages(list(texts), progress)
