from __future__ import annotations

import gzip
import json
import random

import pytest

from jaxret.data import stored_corpus as module
from jaxret.data.beir import BeirFolder, read_corpus
from jaxret.data.mapped_texts import mapped_texts, texts_written
from jaxret.errors import InputError
from tests.data.conftest import CORPUS


def test_texts_in_a_file(tmp_path):
    texts = ["one", "", "日本語 😀", "two\nlines", ""]
    with texts_written(tmp_path / "texts") as append:
        for text in texts:
            append(text)
    found = mapped_texts(tmp_path / "texts")
    assert list(found) == texts and len(found) == 5
    assert (found[-3], found[1:4], found[::-2]) == (texts[-3], texts[1:4], texts[::-2])
    with pytest.raises(IndexError):
        found[5]


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_bytes(tmp_path, texts):
    with texts_written(tmp_path / "texts") as append:
        for text in texts:
            append(text)
    assert list(mapped_texts(tmp_path / "texts")) == texts


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_is_the_corpus_in_memory(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(module, "SORTED_AT_ONCE", at_once)
    names = [f"{chr(0x3042 + n % 5)}{n * 37 % 101}" for n in range(60)]
    random.Random(0).shuffle(names)
    rows = [{"_id": name, "title": name[0] * (n % 2), "text": f"text  {n % 9}\n"} for n, name in enumerate(names)]
    (tmp_path / "qrels").mkdir()
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    plain, stored = read_corpus(tmp_path), BeirFolder(tmp_path, scratch=tmp_path / "scratch").corpus
    for column in ("ids", "titles", "texts", "by_id", "text_keys"):
        assert list(getattr(stored, column)) == list(getattr(plain, column)), column
    assert stored.fingerprint == plain.fingerprint and len(stored) == 60
    assert dict(stored.row_of) == plain.row_of == {name: stored.row_of[name] for name in names}
    assert "zz" not in stored.row_of and "" not in stored.row_of
    assert len(set(plain.text_keys.tolist())) == 9, "white space aside"


@pytest.mark.parametrize("at_once", [1, 1000])
def test_duplicate_id(beir_folder, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(module, "SORTED_AT_ONCE", at_once)
    folder = BeirFolder(beir_folder(corpus=[CORPUS[0], "", *CORPUS]), scratch=tmp_path / "scratch")
    with pytest.raises(InputError, match=r"corpus\.jsonl:3: \"_id\" 'd1' is there twice, first in line 1"):
        _ = folder.corpus


def test_bad_rows_are_the_folders(beir_folder, tmp_path):
    path = beir_folder(corpus=[*CORPUS, '{"_id": "x", "text": " "}'])
    with pytest.raises(InputError, match=r"corpus\.jsonl:4: \"text\" is empty"):
        _ = BeirFolder(path, scratch=tmp_path / "one").corpus
    folder = BeirFolder(path, "skip", scratch=tmp_path / "two")
    assert list(folder.corpus.ids) == ["d1", "d2", "d3"] and folder.skipped == {'corpus.jsonl: "text" is empty': 1}
