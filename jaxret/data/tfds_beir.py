"""The training part of a BEIR folder as a TFDS data set, prepared once into a cache."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.data.beir import BeirFolder
from jaxret.data.groups import positive_documents
from jaxret.data.tensorflow_cpu import tf, tfds


def passage_key(title: str, text: str) -> int:
    """A stable 31-bit hash of a passage: copies of it are equal, under whatever id and in whatever folder."""
    digest = hashlib.blake2b(f"{title}\0{text}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF


class BeirTraining(tfds.core.GeneratorBasedBuilder):
    """The queries of one split that have a relevant document, and the documents that they name.

    Two TFDS splits of one record type: `queries` (id, text, positives, negatives) and `documents` (id, title, text,
    key). Positives and negatives are rows of `documents`: a document is stored once, however many queries name it.
    """

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # Beside the code TFDS looks for checksums of downloads; there are none.

    def __init__(self, folder: BeirFolder, split: str, cache_dir: Path):
        self._folder, self._split = folder, split
        super().__init__(data_dir=cache_dir / f"{split}-{folder.fingerprint[:16]}")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "title": tfds.features.Text(),
            "text": tfds.features.Text(),
            "key": np.int32,
            "positives": tfds.features.Sequence(np.int64),
            "negatives": tfds.features.Sequence(np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # rows keep their numbers
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        positives = positive_documents(self._folder, self._split)
        negatives = {query: self._folder.negatives.get(query, []) for query in positives}
        self.info.metadata["without_negatives"] = [query for query in positives if not negatives[query]][:1]
        named = dict.fromkeys(
            document for table in (positives, negatives) for ids in table.values() for document in ids
        )
        row_of = {document: row for row, document in enumerate(named)}
        return {
            "documents": self._generate_examples(self._documents(named)),
            "queries": self._generate_examples(self._queries(row_of, positives, negatives)),
        }

    def _generate_examples(self, records: Iterator[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(records)

    def _documents(self, named):
        corpus = self._folder.corpus
        for document in named:
            title, text = (column[corpus.row_of[document]] for column in (corpus.titles, corpus.texts))
            yield _record(document, title, text, passage_key(title, text))

    def _queries(self, row_of, positives, negatives):
        queries = self._folder.queries
        for query, documents in positives.items():
            rows = [[row_of[document] for document in ids] for ids in (documents, negatives[query])]
            yield _record(query, "", queries.texts[queries.row_of[query]], 0, *rows)


def _record(identifier, title, text, key, positives=(), negatives=()):
    names = ("id", "title", "text", "key", "positives", "negatives")
    return dict(zip(names, (identifier, title, text, key, positives, negatives), strict=True))


def prepared(folder: BeirFolder, split: str, cache_dir: str | Path) -> BeirTraining:
    """The data set of a split, read from the cache or first written there.

    Its place depends on the folder's fingerprint, so that a changed folder is prepared again. It is written under
    another name and renamed at the end; what a killed process left is removed; of several processes one writes.
    """
    cache_dir = Path(cache_dir)
    cache_dir.mkdir(parents=True, exist_ok=True)
    with open(cache_dir / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        builder = BeirTraining(folder, split, cache_dir)
        if not builder.data_path.exists():
            positive_documents(folder.validated(split), split)
            for left in Path(builder.data_path).parent.glob("incomplete.*"):
                shutil.rmtree(left)
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare()
    return builder


def table(builder: BeirTraining, name: str) -> dict[str, tf.Tensor | tf.RaggedTensor]:
    """All records of `queries` or `documents` in memory, in order, {field: values}.

    Read straight from TFDS's files: `as_dataset` takes ten times as long and pads positives and negatives with row 0.
    """
    rows = tf.io.RaggedFeature(tf.int64)
    fields = {
        **dict.fromkeys(("id", "title", "text"), tf.io.FixedLenFeature([], tf.string)),
        "key": tf.io.FixedLenFeature([], tf.int64),
        **dict.fromkeys(("positives", "negatives"), rows),
    }
    files = [str(file) for file in builder.info.splits[name].filepaths]
    records = tf.data.TFRecordDataset(files).batch(builder.info.splits[name].num_examples)
    return tf.io.parse_example(records.get_single_element(), fields)
