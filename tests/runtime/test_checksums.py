import hashlib

import pytest

from jaxret.runtime.checksums import SUMS, damaged, seal, with_checksum, without_checksum

FILES = {"a": b"one", "part/b": b"two" * 1000, "part/deep/c": b"", "parts": "四".encode()}


@pytest.fixture
def folder(tmp_path):
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    seal(tmp_path)
    return tmp_path


def test_the_sums_are_those_of_the_files(folder):
    *lines, _ = (folder / SUMS).read_text().splitlines()
    assert lines == [f"{hashlib.sha256(data).hexdigest()}  {name}" for name, data in FILES.items()]
    assert damaged(folder) is None
    seal(folder)
    assert (folder / SUMS).read_text().splitlines()[:-1] == lines


def test_a_missing_file_a_longer_one_and_another_are_named(folder):
    (folder / "part" / "deep" / "c").write_bytes(b"0")
    assert damaged(folder) == folder / "part" / "deep" / "c"
    (folder / "part" / "b").unlink()
    assert damaged(folder) == folder / "part" / "b"
    (folder / "a").write_bytes(b"onE")
    assert damaged(folder) == folder / "a"


def test_only_the_parts_that_matter_are_read(folder):
    (folder / "parts").write_bytes(b"")
    assert damaged(folder, ["part", "a"]) is None
    assert damaged(folder, ["part", "parts"]) == folder / "parts"


def test_every_bit_of_the_sums_is_guarded(folder):
    file = folder / SUMS
    whole = file.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 128):
            data = bytearray(whole)
            data[place] ^= bit
            file.write_bytes(data)
            assert damaged(folder) == file, place
    for length in range(len(whole) - 1):
        file.write_bytes(whole[:length])
        assert damaged(folder) == file, length


def test_a_folder_without_sums_is_not_damaged(folder):
    (folder / SUMS).unlink()
    (folder / "a").unlink()
    assert damaged(folder) is None


def test_a_record_says_whether_it_is_what_was_written():
    record = {"b": [1, {"c": None}], "a": "四"}
    whole = with_checksum(record)
    assert without_checksum(whole) == record and without_checksum(dict(reversed(whole.items()))) == record
    for other in ({**whole, "a": "三"}, {**whole, "d": 0}, {name: whole[name] for name in ("b", "checksum")}, record):
        assert without_checksum(other) is None
