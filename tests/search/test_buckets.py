"""Stores in a bucket: the objects that a disk would hold, each whole, in the order that makes a killed run safe."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.search.folder import Folder
from jaxret.search.store import MANIFEST, RECORD, StoredVectors, has_shard, seal, shard_name, write_shard
from tests.search.test_store import IDS, assert_equal, shard, written

PLACE = "gs://bucket/deep/store"
KILLED = """
import sys
from tests.search.test_store import written

written(sys.argv[1])
"""


def in_store(name):
    return f"deep/store/{name}"


def test_a_bucket_holds_what_a_disk_would(bucket, tmp_path):
    on_disk = StoredVectors(written(tmp_path / "store", "int8"))
    stored = StoredVectors(written(PLACE, "int8"))
    files = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
    files = {in_store(path.relative_to(tmp_path / "store")): data for path, data in files.items()}
    assert {name: data for name, (_, data) in bucket.objects.items()} == files
    stored.check()
    for number in range(3):
        assert_equal(stored.shard(number), on_disk.shard(number))
    assert_equal(stored.rows([7, 0, 2, 2, 3]), on_disk.rows([7, 0, 2, 2, 3]))
    assert stored.ids_at(range(8)) == list("hgfedcba")


def test_records_come_after_what_they_name_and_the_manifest_last(bucket):
    written(PLACE)
    names = bucket.written()
    assert len(set(names)) == len(names) == 1 + 3 * (2 + 2 * 7), "each object is sent once"
    ends = [names.index(in_store(f"{shard_name(number)}/{RECORD}")) for number in range(3)]
    for number, end in enumerate(ends):
        mine = [place for place, name in enumerate(names) if f"/{shard_name(number)}/" in name]
        assert max(mine) == end
    assert names[-1] == in_store(MANIFEST) and ends == sorted(ends)


def test_every_damaged_object_is_named(bucket):
    folder = Folder(PLACE)
    write_shard(folder, 0, IDS[2], shard(2))
    seal(folder, 1, {})
    whole = dict(bucket.objects)
    assert len(whole) == 1 + 2 + 2 * 7
    for name, (_, data) in whole.items():
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        for damaged in (data[:middle], flipped, None):
            if damaged is None:
                del bucket.objects[name]
            else:
                bucket.put(name, damaged)
            with pytest.raises(InputError, match=rf"^gs://bucket/{name}(:\d+)?: "):
                StoredVectors(PLACE).check()
            bucket.put(name, data)
    StoredVectors(PLACE).check()


@pytest.mark.parametrize("number", [5, 25])
def test_a_writer_killed_in_the_middle_of_an_object_continues(root, bucket, tmp_path, number):
    def kill(name):
        if len(bucket.written()) == number:
            os.kill(process.pid, signal.SIGKILL)
            return True
        return False

    bucket.received = kill
    command = [sys.executable, "-c", KILLED, PLACE]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(root)})
    assert process.wait(60) == -signal.SIGKILL
    assert list(bucket.objects) == bucket.written() and len(bucket.objects) == number, "nothing of the object"
    bucket.received, sent = (lambda name: False), len(bucket.written())
    store = Folder(PLACE)
    missing = [place for place in range(3) if not has_shard(store, place)]
    assert missing == list(range(number // 16, 3))
    for place in missing:
        write_shard(store, place, IDS[place], shard(place))
    seal(store, 3, {"model": "m"})
    assert len(bucket.written()) - sent == 16 * len(missing) + 1
    written(tmp_path / "store")
    assert set(bucket.objects) == {in_store(name) for name in Folder(tmp_path / "store").names()}
    for name in Folder(tmp_path / "store").names():
        assert Folder(PLACE).read(name) == (tmp_path / "store" / name).read_bytes(), name


def test_of_several_writers_the_first_ones_file_stays(bucket):
    def overtaken(name):
        bucket.put(name, b"of the other")
        return False

    folder = Folder(PLACE)
    folder.create("claim.json", b"mine")
    folder.create("claim.json", b"too late")
    assert folder.read("claim.json") == b"mine"
    bucket.received = overtaken
    folder.create("another.json", b"mine")
    assert folder.read("another.json") == b"of the other"


def test_an_answer_that_fails_for_a_moment_is_asked_for_again(bucket):
    failures = iter([503])
    bucket.refused = lambda method, name: next(failures, None)
    Folder(PLACE).write("file", b"value")
    assert Folder(PLACE).read("file") == b"value"
    assert bucket.log[:2] == [("POST", "deep/store/file")] * 2


def refusal(status, method="", name=""):
    """Refuses requests of this method for objects with names that end so."""
    return lambda asked, place: status if asked.startswith(method) and place.endswith(name) else None


def test_what_an_account_may_not_do_is_said(bucket):
    written(PLACE)
    stored = StoredVectors(PLACE)
    may_not = r"PERMISSION_DENIED.*\. Check the network, the name, and what this account may do there"
    for name, call in {
        MANIFEST: lambda: StoredVectors(PLACE),
        "shard-00001/tokens/zarr.json": lambda: stored.part(1, 0, 1, ["tokens"]),
        "shard-00002/dense/c/0/0": lambda: stored.part(2, 0, 1, ["dense"]),
    }.items():
        bucket.refused = refusal(403, "GET", name)
        with pytest.raises(InputError, match=rf"^{PLACE}/{name}: cannot be read: {may_not}"):
            call()
    bucket.refused = lambda method, name: 403 if not name else None
    with pytest.raises(InputError, match=rf"^{PLACE}: its files cannot be listed\. Check the network"):
        StoredVectors(PLACE)
    bucket.refused = refusal(403, "POST")
    for call in (Folder(PLACE).write, Folder(PLACE).create):
        with pytest.raises(InputError, match=rf"^{PLACE}/file: cannot be written: {may_not}"):
            call("file", b"value")
    with pytest.raises(InputError, match=rf"^{PLACE}/array: cannot be written: {may_not}"):
        Folder(PLACE).write_array("array", np.ones(3))


def test_a_bucket_that_is_not_there(bucket):
    for place in ("gs://other/store", "gs://other"):
        with pytest.raises(InputError, match=rf"^{place}/{MANIFEST}: no such file: .* no complete store"):
            StoredVectors(place)
        with pytest.raises(InputError, match=rf"^{place}/file: cannot be written: NOT_FOUND.* the name,"):
            Folder(place).write("file", b"value")
    with pytest.raises(InputError, match=r"^gs://B: cannot be opened: .*Invalid GCS bucket name"):
        Folder("gs://B")
