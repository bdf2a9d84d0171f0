import gzip
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from jaxret import files
from jaxret.errors import InputError
from jaxret.files import (
    atomic,
    atomic_folder,
    existing,
    existing_folder,
    open_text,
    read_json,
    scratch_folder,
    sha256,
    write_json,
)


def test_a_plain_file_comes_before_its_gzip_twin(tmp_path):
    path = tmp_path / "corpus.jsonl"
    with pytest.raises(InputError, match=rf"{path}: no such file"):
        existing(path)
    with gzip.open(f"{path}.gz", "wt", encoding="utf-8") as file:
        file.write("gzip 猫\r\nline\n")
    assert existing(path) == tmp_path / "corpus.jsonl.gz"
    with open_text(path) as file:
        assert file.readlines() == ["gzip 猫\r\n", "line\n"]
    path.write_text("plain\n")
    assert existing(path) == path
    with open_text(path) as file:
        assert file.read() == "plain\n"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    assert existing_folder(str(tmp_path)) == tmp_path
    for path in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(InputError, match=rf"{path}: no such folder"):
            existing_folder(path)


@pytest.mark.parametrize(("mode", "old", "new"), [("w", "old", "猫\n"), ("wb", b"old", b"\x00\xff")])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, mode, old, new):
    path = tmp_path / "deep" / "file"

    def content():
        return path.read_bytes() if "b" in mode else path.read_text(encoding="utf-8")

    with atomic(path, mode) as file:
        file.write(old)
        assert not path.exists()
    assert content() == old
    with pytest.raises(RuntimeError, match="half way"), atomic(path, mode) as file:
        file.write(new)
        raise RuntimeError("half way")
    assert content() == old
    with atomic(path, mode) as file:
        file.write(new)
    assert content() == new
    assert os.listdir(path.parent) == ["file"], "left-overs"


def test_files_get_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic(tmp_path / "file") as file:
            file.write("")
        with atomic_folder(tmp_path / "folder"):
            pass
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder")]
    finally:
        os.umask(before)
    assert modes == [0o640, 0o750]


@pytest.fixture(params=["in one step", "by renaming"])
def exchange(request, monkeypatch):
    """Each way to put a folder in the place of another."""
    if request.param == "by renaming":
        monkeypatch.setattr(files, "_exchanged", lambda *_: False)


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, exchange):
    path = tmp_path / "deep" / "folder"
    with atomic_folder(path) as folder:
        (folder / "a").write_text("old")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as folder:
        (folder / "b").write_text("half")
        raise KeyboardInterrupt
    assert [file.name for file in path.iterdir()] == ["a"]
    with atomic_folder(path) as folder:
        (folder / "b").write_text("new")
        assert (path / "a").exists()
    assert [file.name for file in path.iterdir()] == ["b"]
    assert os.listdir(path.parent) == ["folder"], "left-overs"


def test_a_folder_is_there_while_it_is_replaced(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    if not files._exchanged(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this system cannot exchange two names")
    path, absent, done = tmp_path / "folder", [], threading.Event()

    def watch():
        while not done.is_set():
            absent.extend([] if path.exists() else [1])

    with atomic_folder(path) as folder:
        (folder / "a").write_text("")
    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(200):
        with atomic_folder(path):
            pass
    done.set()
    watcher.join()
    assert not absent


def test_a_scratch_folder_goes_however_it_is_left(tmp_path):
    with scratch_folder(tmp_path / "new" / "file") as folder:
        (folder / "deep").mkdir()
        assert folder.parent == tmp_path / "new" and folder.name.startswith(".file.")
    for error in (InputError("place", "problem", "fix"), KeyboardInterrupt()):
        with pytest.raises(type(error)), scratch_folder(tmp_path / "new" / "file") as folder:
            (folder / "text").write_text("text")
            raise error
    assert not list((tmp_path / "new").iterdir())


def test_the_old_folder_is_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    replace, path = os.replace, tmp_path / "folder"

    def failing(source, target):
        if Path(target) == path and not Path(source).joinpath("old").exists():
            raise OSError("no")
        replace(source, target)

    path.mkdir()
    (path / "old").write_text("")
    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="no"), atomic_folder(path) as folder:
        (folder / "new").write_text("")
    assert [file.name for file in path.iterdir()] == ["old"]
    assert os.listdir(tmp_path) == ["folder"], "left-overs"


def test_json_comes_back(tmp_path):
    value = {"名前": ["猫", 1, 2.5, None], "nested": {"true": True}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "猫" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with gzip.open(tmp_path / "b.json.gz", "wt", encoding="utf-8") as file:
        json.dump(value, file)
    assert read_json(tmp_path / "b.json") == value


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert read_json(tmp_path / "a.json") == 1
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("content", "place"),
    [(b'{\n  "a": 1,\n  "b": [1,\n}\n', "a.json:4"), (b"", "a.json:1"), (b'{"a": "\xff\xfe"}', "a.json")],
)
def test_broken_json_is_an_input_error_with_its_line(tmp_path, content, place):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"^{tmp_path}/{place}: broken JSON"):
        read_json(tmp_path / "a.json")


def test_a_truncated_gzip_file_is_an_input_error(tmp_path):
    data = gzip.compress(json.dumps(list(range(1000))).encode())
    (tmp_path / "a.json.gz").write_bytes(data[:100])
    with pytest.raises(InputError, match=rf"^{tmp_path}/a.json.*broken"):
        read_json(tmp_path / "a.json")


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
