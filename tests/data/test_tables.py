import os
import signal
import subprocess
import sys

import pytest

from jaxret.data.tables import Column, Content, prepared, table
from jaxret.data.tensorflow_cpu import tf
from jaxret.errors import InputError

COLUMNS = {"name": Column(tf.string), "count": Column(tf.int64)} | {
    "words": Column(tf.string, many=True),
    "rows": Column(tf.int64, many=True),
    "scores": Column(tf.float32, many=True),
}
RECORDS = [
    {"name": "b", "count": 7, "words": ["x", "日本"], "rows": [3, 1], "scores": [0.5]},
    {"name": "", "count": -1, "words": [], "rows": [], "scores": []},
    {"name": "a", "count": 0, "words": [""], "rows": [0], "scores": [1.0, -2.0, 0.25]},
]


def content(records=RECORDS):
    return Content({"first": records, "second": records[:1]}, {"what": ["a", 3]})


def rows(tables, name):
    read = {name: values.numpy() for name, values in table(tables, name).items()}
    return [{field: values[i] for field, values in read.items()} for i in range(len(read["count"]))]


def test_records_come_back_in_order(tmp_path):
    tables = prepared(tmp_path, "a", COLUMNS, content)
    assert [
        {
            "name": row["name"].decode(),
            "count": int(row["count"]),
            "words": [word.decode() for word in row["words"]],
            "rows": row["rows"].tolist(),
            "scores": row["scores"].tolist(),
        }
        for row in rows(tables, "first")
    ] == RECORDS
    assert [row["name"] for row in rows(tables, "second")] == [b"b"]
    assert list(tables.facts["what"]) == ["a", 3]
    assert list(prepared(tmp_path, "a", COLUMNS, content).facts["what"]) == ["a", 3], "and from the file"


def test_prepared_once_under_a_name(tmp_path):
    first = prepared(tmp_path, "a", COLUMNS, content).data_path
    stamp = os.stat(first).st_mtime_ns

    def never():
        raise AssertionError("it is there")

    again = prepared(tmp_path, "a", COLUMNS, never).data_path
    assert again == first and os.stat(again).st_mtime_ns == stamp
    assert prepared(tmp_path, "b", COLUMNS, content).data_path != first


def test_an_error_leaves_nothing_behind(tmp_path):
    def wrong():
        raise InputError("file:3", "broken", "Mend it.")

    with pytest.raises(InputError, match=r"file:3: broken\. Mend it"):
        prepared(tmp_path, "a", COLUMNS, wrong)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / ".lock"]


KILLED = """
import os, sys
from jaxret.data.tables import Column, Content, prepared
from jaxret.data.tensorflow_cpu import tf

def killed():
    yield {"name": "half"}
    os.kill(os.getpid(), 9)

prepared(sys.argv[1], "a", {"name": Column(tf.string)}, lambda: Content({"first": killed()}))
"""


def test_a_killed_process_leaves_nothing_that_is_read(tmp_path, root):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=root, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.rglob("incomplete.*")), "it was killed in the middle"
    assert len(rows(prepared(tmp_path, "a", COLUMNS, content), "first")) == 3
    assert not list(tmp_path.rglob("incomplete.*"))


def test_the_gpus_are_left_to_jax():
    assert tf.config.get_visible_devices("GPU") == []
