import dataclasses
import os
import shutil

import jax
import pytest

from jaxret.data.corpus import Corpus
from jaxret.errors import InputError
from jaxret.runtime.mesh import device_mesh
from jaxret.search.copying import copy_store
from jaxret.search.corpus import CLAIM, identity
from jaxret.search.encode import TextEncoder
from jaxret.search.folder import Folder
from jaxret.search.store import MANIFEST, RECORD, StoredVectors, seal
from tests.search.test_store import SIZES, written

CORPUS = Corpus(list("abcdefgh"), [""] * 8, [f"text {number}" for number in range(8)])


@pytest.fixture(scope="module")
def encoder(model, random_params):
    """Never asked to encode."""
    params = random_params(model.abstract_params())
    return TextEncoder(model, params, device_mesh((1, 1, 1), jax.devices()[:1]))


def sealed(place, encoder, dtype="float32"):
    """As if the encoder had made it."""
    claim = identity(encoder, CORPUS) | {"dtype": dtype, "shard_documents": 5}
    written(place, dtype)
    Folder(place).write_json(CLAIM, claim)
    seal(Folder(place), len(SIZES), claim)
    return place


@pytest.fixture
def store(tmp_path, encoder):
    return sealed(tmp_path / "store", encoder)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_is_the_same_and_takes_no_room_of_its_own(store, encoder, tmp_path):
    heard, copy = [], tmp_path / "index" / "vectors"
    copy_store(store, copy, encoder, CORPUS, heard.append)
    assert contents(copy) == contents(store) and heard == list(SIZES)
    for name in contents(store):
        own = name.name in (CLAIM, MANIFEST)
        assert (store / name).samefile(copy / name) != own, name
    shutil.rmtree(store)
    StoredVectors(copy).check()


def no_links(*_):
    raise OSError


def test_without_links_it_is_copied(store, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    copy_store(store, tmp_path / "copy", encoder, CORPUS)
    assert contents(tmp_path / "copy") == contents(store)
    assert not any((store / name).samefile(tmp_path / "copy" / name) for name in contents(store))


def test_a_copy_from_a_bucket_and_into_one(bucket, store, encoder, tmp_path):
    copy_store(store, "gs://bucket/store", encoder, CORPUS)
    assert {name: data for name, (_, data) in bucket.objects.items()} == {
        f"store/{name}": data for name, data in contents(store).items()
    }
    records = [name for name in bucket.written() if name.endswith(RECORD)]
    assert len(records) == 3 and bucket.written()[-1] == f"store/{MANIFEST}"
    copy_store("gs://bucket/store", tmp_path / "copy", encoder, CORPUS)
    assert contents(tmp_path / "copy") == contents(store)


@pytest.mark.parametrize("linked", [True, False])
def test_a_killed_copy_continues(store, encoder, tmp_path, monkeypatch, linked):
    copy, one = Folder.copy, tmp_path / "copy"
    names = []

    def killed(self, other, name):
        if len(names) == 20:
            raise KeyboardInterrupt
        names.append(name)
        copy(self, other, name)

    if not linked:
        monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(Folder, "copy", killed)
    with pytest.raises(KeyboardInterrupt):
        copy_store(store, one, encoder, CORPUS)
    assert names[15] == f"shard-00000/{RECORD}" and not (one / MANIFEST).exists()
    (one / names[-1]).unlink()
    (one / names[-1]).write_bytes(b"half")
    names.clear()
    monkeypatch.setattr(Folder, "copy", lambda self, other, name: names.append(name) or copy(self, other, name))
    copy_store(store, one, encoder, CORPUS)
    assert contents(one) == contents(store) and len(names) == 32, "the first shard is kept"
    copy_store(store, one, encoder, CORPUS)
    copy_store(one, one, encoder, CORPUS)
    assert len(names) == 32, "a complete one is left as it is"


def test_what_does_not_fit_is_refused(store, encoder, tmp_path):
    other = dataclasses.replace(CORPUS, texts=[*CORPUS.texts[:-1], "something else"])
    moved = TextEncoder(encoder.model, jax.tree.map(lambda x: x + 1, encoder.params), encoder.mesh)
    for name, made, corpus in (("corpus", encoder, other), ("model", moved, CORPUS)):
        with pytest.raises(InputError, match=rf"^{store / MANIFEST}: made with another {name}\. "):
            copy_store(store, tmp_path / "copy", made, corpus)
    for damaged in (store / "shard-00002/tokens/c/0/0", store / MANIFEST):
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(InputError, match=rf"^{damaged}(:\d+)?: "):
            copy_store(store, tmp_path / "copy", encoder, CORPUS)
        damaged.write_bytes(whole)
    assert set(map(str, contents(tmp_path / "copy"))) == {CLAIM}
    shutil.rmtree(tmp_path / "copy")
    begun = sealed(tmp_path / "copy", encoder, "int8")
    before = contents(begun)
    with pytest.raises(InputError, match=rf"^{begun / CLAIM}: made with another dtype\. "):
        copy_store(store, begun, encoder, CORPUS)
    assert contents(begun) == before
