import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.search.store import MANIFEST, read_manifest, read_vectors, seal, shard_bounds, shard_folder, write_shard
from jaxret.search.vectors import Ragged, Vectors


def shard(seed, count):
    random = np.random.default_rng(seed)

    def ragged(dtype, *width):
        lengths = random.integers(0, 4, count)
        values = (random.normal(size=(lengths.sum(), *width)) * 10).astype(dtype)
        return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]))

    dense = random.normal(size=(count, 3)).astype(np.float32)
    return Vectors(dense, ragged(np.float32, 2), ragged(np.int32), ragged(np.float32))


@pytest.fixture
def store(tmp_path):
    """Three documents in two shards."""
    folder = tmp_path / "store"
    write_shard(folder, 0, shard(0, 2))
    write_shard(folder, 1, shard(1, 1))
    seal(folder, ["c", "b", "a"], {"model": "m", "documents": 3})
    return folder


def assert_equal(found, parts):
    np.testing.assert_array_equal(found.dense, np.concatenate([part.dense for part in parts]))
    for name in ("tokens", "term_ids", "term_weights"):
        rows = [getattr(part, name).row(i) for part in parts for i in range(len(part))]
        whole = getattr(found, name)
        assert whole.values.dtype == getattr(parts[0], name).values.dtype
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(whole.row(i), row)


def test_what_is_written_comes_back(store):
    ids, vectors, manifest = read_vectors(store)
    assert ids == ["c", "b", "a"] and len(vectors) == 3
    assert (manifest["model"], manifest["documents"]) == ("m", 3)
    assert_equal(vectors, [shard(0, 2), shard(1, 1)])


def test_missing_heads_stay_missing(tmp_path):
    write_shard(tmp_path, 0, Vectors(dense=np.ones((2, 3), np.float32)))
    seal(tmp_path, ["b", "a"], {})
    _, vectors, _ = read_vectors(tmp_path)
    assert vectors.tokens is None and vectors.term_ids is None and vectors.term_weights is None
    assert len(vectors) == 2


def truncated(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def flipped(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damaged", [truncated, flipped, lambda file: file.unlink()])
@pytest.mark.parametrize("name", ["shard-00000/dense.npy", "shard-00001/dense.npy", "shard-00000/tokens_offsets.npy"])
def test_a_damaged_file_is_named(store, name, damaged):
    damaged(store / name)
    with pytest.raises(InputError, match=rf"^{store / name}: .*damaged"):
        read_vectors(store)


def test_without_its_manifest_a_store_is_incomplete(store):
    (store / MANIFEST).unlink()
    for read in (read_vectors, read_manifest):
        with pytest.raises(InputError, match=rf"^{store / MANIFEST}: .*no complete store"):
            read(store)


def test_a_broken_manifest_is_an_input_error(store):
    truncated(store / MANIFEST)
    with pytest.raises(InputError, match=rf"^{store / MANIFEST}:\d+: broken JSON"):
        read_vectors(store)


def test_a_shard_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    saved = []

    def save(path, array):
        saved.append(path)
        if len(saved) == 3:
            raise KeyboardInterrupt
        path.write_bytes(array.tobytes())

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, 0, shard(0, 2))
    assert not shard_folder(tmp_path, 0).exists() and not list(tmp_path.iterdir())


def test_shards_cover_the_corpus():
    assert list(shard_bounds(7, 3)) == [(0, 3), (3, 6), (6, 7)]
    assert list(shard_bounds(6, 3)) == [(0, 3), (3, 6)]
    assert list(shard_bounds(0, 3)) == []
