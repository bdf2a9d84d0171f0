"""Tables of records as TFDS data sets, prepared once into a cache and then held in memory."""

from __future__ import annotations

import contextlib
import fcntl
import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxret.data.tensorflow_cpu import tf, tfds


@dataclass(frozen=True)
class Column:
    """What a field of a record holds: `tf.string`, `tf.int64` or `tf.float32`, one or any number of them."""

    dtype: tf.DType
    many: bool = False


Columns = Mapping[str, Column]


@dataclass(frozen=True)
class Content:
    """The records of each table, all with the fields of the columns, and facts about them that JSON can hold."""

    tables: Mapping[str, Iterable[Mapping[str, Any]]]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Tables(tfds.core.GeneratorBasedBuilder):
    """Tables of one type of record, a TFDS split each; rows keep their numbers.

    Args:
      place: its folder.
      columns: the fields of the records.
      content: what to write; None to read what is there.
    """

    VERSION = tfds.core.Version("2.0.0")
    code_path = None  # Beside the code TFDS looks for checksums of downloads; there are none.

    def __init__(self, place: Path, columns: Columns, content: Content | None = None):
        self.columns, self._content = columns, content
        super().__init__(data_dir=place)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What `Content.facts` said."""
        facts: Mapping[str, Any] = self.info.metadata
        return facts

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({name: _feature(column) for name, column in self.columns.items()}),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        if self._content is None:
            raise ValueError("there is no content to write")
        self.info.metadata.update(self._content.facts)
        return {name: self._generate_examples(records) for name, records in self._content.tables.items()}

    def _generate_examples(self, records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        yield from enumerate(records)


def prepared(cache_dir: str | Path, name: str, columns: Columns, read: Callable[[], Content]) -> Tables:
    """The tables of a name, found in the cache or first written there.

    They are written under another name and renamed at the end; what a killed process left is removed; of several
    processes one writes.

    Args:
      cache_dir: holds the tables of every name.
      name: a folder; it must tell the content.
      columns: the fields of the records.
      read: gives the content where it is not there yet. What it raises leaves nothing behind.
    """
    cache_dir = Path(cache_dir)
    cache_dir.mkdir(parents=True, exist_ok=True)
    with open(cache_dir / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tables = Tables(cache_dir / name, columns)
        if not tables.data_path.exists():
            tables = Tables(cache_dir / name, columns, read())
            for left in Path(tables.data_path).parent.glob("incomplete.*"):
                shutil.rmtree(left)
            with contextlib.redirect_stdout(io.StringIO()):
                tables.download_and_prepare()
    return tables


def table(tables: Tables, name: str) -> dict[str, tf.Tensor | tf.RaggedTensor]:
    """All records of a table in memory, in order, {field: values}.

    Read straight from TFDS's files: `as_dataset` takes ten times as long and pads rows of numbers with 0.
    """
    split = tables.info.splits[name]
    files = [str(file) for file in split.filepaths]
    records = tf.data.TFRecordDataset(files).batch(split.num_examples).get_single_element()
    return tf.io.parse_example(records, {field: _parsed(column) for field, column in tables.columns.items()})


def _feature(column: Column) -> Any:
    one = tfds.features.Text() if column.dtype == tf.string else tfds.features.Scalar(column.dtype.as_numpy_dtype)
    return tfds.features.Sequence(one) if column.many else one


def _parsed(column: Column) -> Any:
    return tf.io.RaggedFeature(column.dtype) if column.many else tf.io.FixedLenFeature([], column.dtype)
