"""`jaxret encode` and `jaxret index`: texts stay in files beside the output, which go with the command."""

import pytest

from jaxret.data import beir
from jaxret.data.beir import read_corpus
from jaxret.search import corpus as encoding
from tests.cli.test_wrong_input import refused, spoiled


@pytest.fixture
def on_disk(monkeypatch):
    """No command reads a corpus into memory."""

    def in_memory(*_):
        raise AssertionError("texts in memory")

    monkeypatch.setattr(beir, "read_corpus", in_memory)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_encode_is_interrupted_continued_and_refused(jaxret, trained, animals, tmp_path, monkeypatch, on_disk):
    from jaxret.cli.encode import text_encoder

    encoder = text_encoder(trained, None, "-1,1,1")[0]
    encoding.encode_corpus(encoder, read_corpus(animals), tmp_path / "expected", shard_documents=20)
    command = ("encode", "--model", trained, "--data", animals, "--output", tmp_path / "new" / "store")
    command = (*command, "--shard_documents", 20)
    write, written, beside = encoding.write_shard, [], []

    def interrupted(folder, number, *rest):
        beside.extend(path.name for path in (tmp_path / "new").iterdir())
        if number:
            raise KeyboardInterrupt
        write(folder, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "write_shard", interrupted)
        assert jaxret(*command)[0] == 130
    assert any(name.startswith(".store.") for name in beside), "the texts were beside the store"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["store"]
    monkeypatch.setattr(encoding, "write_shard", lambda *given: written.append(given[1]) or write(*given))
    code, out, err = jaxret(*command)
    assert code == 0 and "32 documents" in out, err
    assert written == [1] and contents(tmp_path / "new" / "store") == contents(tmp_path / "expected")
    spoiled(animals / "corpus.jsonl", "sleeps", "wakes")
    refused(jaxret(*command), "made with another corpus")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["store"]
    code, out, _ = jaxret(*command[:-3], tmp_path / "other" / "store", "--dry_run")
    assert code == 0 and "would encode 32 documents" in out and not (tmp_path / "other").exists()


def test_an_index_is_the_one_of_a_corpus_in_memory(jaxret, trained, animals, tmp_path, on_disk):
    from jaxret.cli.encode import text_encoder
    from jaxret.search.index import build_index

    encoder, step = text_encoder(trained, None, "-1,1,1")
    expected = contents(build_index(tmp_path / "expected", encoder, trained, step, read_corpus(animals), "en"))
    code, _, err = jaxret("index", "--model", trained, "--data", animals, "--output", tmp_path / "new" / "index")
    assert code == 0, err
    assert contents(tmp_path / "new" / "index") == expected
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["index"]
    code, out, _ = jaxret("index", "--model", trained, "--data", animals, "--output", tmp_path / "o" / "i", "--dry_run")
    assert code == 0 and "would index 32 documents" in out and not (tmp_path / "o").exists()


def test_a_bucket_has_no_files_beside_it(animals, tmp_path, monkeypatch):
    from jaxret.cli.encode import corpus_on_disk

    monkeypatch.chdir(tmp_path)
    with corpus_on_disk(animals, "gs://bucket/store") as corpus:
        assert len(corpus) == 32 and corpus.folder.parent != tmp_path
        folder = corpus.folder
    assert not folder.exists() and [path.name for path in tmp_path.iterdir()] == ["animals"]
