import gzip

import pytest

from jaxret.data.beir import read_corpus
from jaxret.data.running_text import TextSource
from jaxret.data.sentences import sentences
from jaxret.errors import InputError

LINES = "First.\nSecond one.\n\n\n  A lone one. \n \t\nክፍል።\nሁለት።\nሦስት።"
DOCUMENTS = [["First.", "Second one."], ["A lone one."], ["ክፍል።", "ሁለት።", "ሦስት።"]]


def test_lines(tmp_path):
    (tmp_path / "a.txt").write_text(LINES, encoding="utf-8")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(("\n\n" + LINES + "\n\n").encode()))
    assert list(TextSource(tmp_path / "a.txt").documents()) == DOCUMENTS
    assert list(TextSource(tmp_path / "b.txt").documents()) == DOCUMENTS


def test_passages_of_a_folder(demo):
    found = list(TextSource(demo / "jsquad").documents())
    assert found == [sentences(text) for text in read_corpus(demo / "jsquad").texts]


def test_fingerprints(tmp_path, beir_folder):
    (tmp_path / "a.txt").write_text(LINES)
    (tmp_path / "b.txt").write_text(LINES + " ")
    folder = TextSource(beir_folder())
    prints = [TextSource(tmp_path / name).fingerprint for name in ("a.txt", "b.txt", "a.txt")] + [folder.fingerprint]
    assert prints[0] == prints[2] and len(set(prints)) == 3


def test_errors(tmp_path, beir_folder):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"good\nb\xe9d\n")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(LINES.encode())[:-9])
    cases = [
        (lambda: list(TextSource(tmp_path / "empty.txt").documents()), "empty.txt: holds no text"),
        (lambda: list(TextSource(tmp_path / "latin.txt").documents()), "latin.txt:2: not UTF-8"),
        (lambda: list(TextSource(tmp_path / "cut.txt").documents()), "cut.txt.gz:.*gzip data broken"),
        (lambda: TextSource(tmp_path / "none.txt").fingerprint, "no such file"),
        (lambda: list(TextSource(beir_folder(corpus=["{"])).documents()), r"corpus.jsonl:1: broken JSON"),
        (lambda: TextSource("x", rate=0.0), "source x: rate 0.0 is not positive"),
        (lambda: TextSource("x", language=-3), "source x: language -3 is out of range"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()
