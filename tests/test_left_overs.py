import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from jaxret.cli.mine import mine
from jaxret.files import atomic, atomic_folder, scratch_folder
from jaxret.left_overs import own_prefix, remove_left_overs
from jaxret.nn.convert.tensor_files import write_safetensors

KILLED = """
import os, signal, sys
from jaxret.files import atomic, atomic_folder, scratch_folder

with atomic_folder(sys.argv[1]) as folder, atomic(sys.argv[2]) as file, scratch_folder(sys.argv[3]):
    (folder / "deep").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_when_the_same_is_written_again(root, tmp_path):
    folder, file, scratch = tmp_path / "folder", tmp_path / "file", tmp_path / "scratch"
    command = [sys.executable, "-c", KILLED, str(folder), str(file), str(scratch)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)})
    assert done.returncode == -signal.SIGKILL
    left = os.listdir(tmp_path)
    assert len(left) == 3 and not folder.exists() and not file.exists()
    with atomic(tmp_path / "other"):
        assert set(left) < set(os.listdir(tmp_path)), "they are none of this one's"
    with atomic_folder(folder), atomic(file), scratch_folder(scratch) as own:
        assert not set(left) & set(os.listdir(tmp_path)), "gone before there is anything to write"
        assert own.is_dir() and own.parent == tmp_path
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "other"]


@pytest.fixture
def ended():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_nothing_else_goes(tmp_path, ended, monkeypatch):
    def prefix(name, pid):
        return own_prefix(tmp_path / name).replace(f"-{os.getpid()}.", f"-{pid}.")

    left = prefix("file", ended)
    kept = [
        "file",
        own_prefix(tmp_path / "file") + "12345678",
        prefix("file", 1) + "12345678",
        prefix("file2", ended) + "12345678",
        prefix("x.file", ended) + "12345678",
        left[1:] + "12345678",
        left + "12345678.json",
        left + "123456789",
        prefix("file", f"0{ended}") + "12345678",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "another")
        kept.append(prefix("file", ended) + "12345678")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda path: os.lstat(tmp_path))
        kept.append(prefix("file", ended) + "12345678")
    for name in [*kept, left + "12345678"]:
        (tmp_path / name).write_text("")
    (tmp_path / (left + "a_folder")).mkdir()
    remove_left_overs(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == sorted(kept) and len(set(kept)) == 11


def left_of(path, ended):
    """A folder that a process which ended left for `path`."""
    left = path.with_name(own_prefix(path).replace(f"-{os.getpid()}.", f"-{ended}.") + "12345678")
    (left / "deep").mkdir(parents=True)
    return left


def test_whoever_writes_weights_removes_what_was_left_of_others(tmp_path, ended):
    left = left_of(tmp_path / "model" / "weights", ended)

    def tensors():
        assert not left.exists() and len(os.listdir(tmp_path / "model")) == 1
        yield "a", np.ones(3)

    write_safetensors(tmp_path / "model", tensors())
    assert os.listdir(tmp_path / "model") == ["model.safetensors"]


def test_mining_removes_what_was_left_of_another(beir_of_animals, tmp_path, ended):
    output = tmp_path / "negatives.tsv"
    left, other = left_of(tmp_path / "negatives.tsv", ended), left_of(tmp_path / "more.tsv", ended)
    mine(beir_of_animals, "bm25", output)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, output.name, f"{output.name}.manifest.json"]
    assert not left.exists()


def test_what_cannot_be_removed_stands_in_nobodys_way(tmp_path, ended, monkeypatch):
    path = tmp_path / "file"
    left = own_prefix(path).replace(f"-{os.getpid()}.", f"-{ended}.") + "12345678"
    (tmp_path / left).mkdir()

    def refused(*_):
        raise PermissionError

    monkeypatch.setattr("jaxret.left_overs.remove", refused)
    with atomic(path):
        pass
    assert sorted(os.listdir(tmp_path)) == [left, "file"]
    monkeypatch.setattr("jaxret.left_overs.os.listdir", refused)
    with atomic(path) as file:
        file.write("more")
    assert path.read_text() == "more"
