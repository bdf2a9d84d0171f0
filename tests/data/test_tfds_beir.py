import os
import signal
import subprocess
import sys

import pytest

from jaxret.data.beir import BeirFolder
from jaxret.data.tfds_beir import passage_key, prepared, table
from jaxret.errors import InputError
from tests.data.conftest import HEADER, QUERIES


def content(builder):
    """{query id: (text, [positive (id, title, text)], [negative ...])}."""
    documents, queries = (
        {k: v.numpy() for k, v in table(builder, "documents").items() if k in ("id", "title", "text")},
        table(builder, "queries"),
    )
    passages = [
        tuple(field.decode() for field in row)
        for row in zip(*(documents[k] for k in ("id", "title", "text")), strict=True)
    ]
    return {
        identifier.decode(): (text.decode(), *([passages[i] for i in rows] for rows in both))
        for identifier, text, *both in zip(
            queries["id"].numpy(),
            queries["text"].numpy(),
            queries["positives"].to_list(),
            queries["negatives"].to_list(),
            strict=True,
        )
    }


def test_records_equal_the_folder(beir_folder, tmp_path):
    path = beir_folder(
        train=[HEADER, "q2\td2\t1", "q2\td3\t3", "q2\td1\t0"],
        test=[HEADER, "q1\td1\t1"],
        negatives=[HEADER, "q2\td1\t0", "q1\td3\t0"],
    )
    builder = prepared(BeirFolder(path), "train", tmp_path / "cache")
    expected = ("second?", [("d2", "", "two"), ("d3", "", "three")], [("d1", "T", "one")])
    assert content(builder) == {"q2": expected}
    assert builder.info.metadata["without_negatives"] == []
    assert content(prepared(BeirFolder(path), "test", tmp_path / "cache")) == {
        "q1": ("first?", [("d1", "T", "one")], [("d3", "", "three")])
    }


def test_slice_of_the_demo(slice_of_demo, tmp_path):
    folder = BeirFolder(slice_of_demo(40, 2))
    found = content(prepared(folder, "train", tmp_path / "cache"))
    assert list(found) == list(folder.qrels("train")), "in the order of the qrels"
    for query, (text, positives, negatives) in found.items():
        assert text == folder.queries.texts[folder.queries.row_of[query]]
        assert [p[0] for p in positives] == list(folder.qrels("train")[query])
        assert [n[0] for n in negatives] == folder.negatives[query]
        for identifier, title, body in positives + negatives:
            row = folder.corpus.row_of[identifier]
            assert (title, body) == (folder.corpus.titles[row], folder.corpus.texts[row])


def test_only_documents_that_are_named_are_stored(beir_folder, tmp_path):
    builder = prepared(BeirFolder(beir_folder()), "train", tmp_path / "cache")
    assert table(builder, "documents")["id"].numpy().tolist() == [b"d1", b"d2"]
    assert builder.info.metadata["without_negatives"] == ["q1"]


def test_prepared_once_for_a_content(beir_folder, tmp_path):
    path = beir_folder()
    first = prepared(BeirFolder(path), "train", tmp_path / "cache").data_path
    stamp = os.stat(first).st_mtime_ns
    again = prepared(BeirFolder(path), "train", tmp_path / "cache").data_path
    assert again == first and os.stat(again).st_mtime_ns == stamp
    beir_folder(queries=[QUERIES[0], '{"_id": "q2", "text": "changed?"}'])
    changed = prepared(BeirFolder(path), "train", tmp_path / "cache")
    assert changed.data_path != first and content(changed)["q2"][0] == "changed?"


def test_errors_come_before_anything_is_written(beir_folder, tmp_path):
    cases = [
        (beir_folder("a"), "test", "no split 'test'. Splits here: train"),
        (beir_folder("b", train=[HEADER, "q1\td1\t0"]), "train", "split 'train' has no relevant document"),
        (beir_folder("c", negatives=[HEADER, "q1\td9\t0"]), "train", r"negatives\.tsv:2"),
        (beir_folder("d", corpus=["{"]), "train", r"corpus\.jsonl:1: broken JSON"),
    ]
    for path, split, message in cases:
        with pytest.raises(InputError, match=message):
            prepared(BeirFolder(path), split, tmp_path / "cache")
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == [tmp_path / "cache" / ".lock"]


KILLED = """
import os, sys
from jaxret.data import tfds_beir
from jaxret.data.beir import BeirFolder

def killed(self, *tables):
    yield tfds_beir._record("q", "", "half", 0, [0])
    os.kill(os.getpid(), 9)

tfds_beir.BeirTraining._queries = killed
tfds_beir.prepared(BeirFolder(sys.argv[1]), "train", sys.argv[2])
"""


def test_a_killed_process_leaves_nothing_that_is_read(beir_folder, tmp_path, root):
    path, cache = beir_folder(), tmp_path / "cache"
    done = subprocess.run([sys.executable, "-c", KILLED, path, cache], cwd=root, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(cache.rglob("incomplete.*")), "it was killed in the middle"
    builder = prepared(BeirFolder(path), "train", cache)
    assert sorted(content(builder)) == ["q1", "q2"]
    assert not list(cache.rglob("incomplete.*"))


def test_passage_key():
    assert passage_key("T", "x") == 1_398_537_774, "stable: runs may be resumed on another machine"
    assert passage_key("T", "x") != passage_key("Tx", "") != passage_key("", "Tx")
    keys = [passage_key("", str(i)) for i in range(1000)]
    assert all(0 <= key < 2**31 for key in keys) and len(set(keys)) == 1000 and max(keys) > 2**30


def test_the_gpus_are_left_to_jax():
    from jaxret.data.tensorflow_cpu import tf

    assert tf.config.get_visible_devices("GPU") == []
