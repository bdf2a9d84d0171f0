import shutil

import ml_dtypes
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.search.dtypes import decoded, stored_as
from jaxret.search.folder import Folder
from jaxret.search.store import (
    MANIFEST,
    StoredVectors,
    has_shard,
    joined,
    read_manifest,
    seal,
    shard_bounds,
    write_shard,
)
from jaxret.search.vectors import Ragged, Vectors

SIZES = (2, 1, 5)
IDS = [["h", "g"], ["f"], ["e", "d", "c", "b", "a"]]


def shard(seed):
    count, random = SIZES[seed], np.random.default_rng(seed)

    def ragged(dtype, *width):
        lengths = random.integers(0, 4, count)
        lengths[0] = 2
        values = (random.normal(size=(lengths.sum(), *width)) * 10).astype(dtype)
        return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]))

    dense = random.normal(size=(count, 3)).astype(np.float32)
    return Vectors(dense, ragged(np.float32, 2), ragged(np.int32), ragged(np.float32))


def written(folder, dtype="float32"):
    store = Folder(folder)
    for number, ids in enumerate(IDS):
        write_shard(store, number, ids, stored_as(shard(number), dtype))
    seal(store, len(IDS), {"model": "m"})
    return folder


@pytest.fixture
def store(tmp_path):
    """Eight documents in three shards."""
    return written(tmp_path / "store")


def assert_equal(found, expected):
    for name in ("dense", "tokens", "term_ids", "term_weights", "dense_scales", "token_scales"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if isinstance(other, Ragged):
            np.testing.assert_array_equal(one.offsets, other.offsets)
            one, other = one.values, other.values
        if other is not None:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_what_is_written_comes_back(tmp_path, dtype):
    opened = StoredVectors(written(tmp_path / "store", dtype))
    assert opened.ids_at(range(8)) == list("hgfedcba") and len(opened) == 8 and opened.starts.tolist() == [0, 2, 3, 8]
    assert opened.manifest["model"] == "m"
    for number in range(3):
        assert_equal(opened.shard(number), stored_as(shard(number), dtype))
    assert_equal(opened.part(2, 1, 4), stored_as(shard(2), dtype).part(1, 4))
    opened.check()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_chosen_rows_are_decoded_in_the_order_asked_for(tmp_path, dtype):
    opened = StoredVectors(written(tmp_path / "store", dtype))
    whole = decoded(joined([stored_as(shard(number), dtype) for number in range(3)]))
    for rows in ([7, 0, 2, 2, 3], [1], [0, 1, 2, 3, 4, 5, 6, 7]):
        assert_equal(opened.rows(rows), whole.chosen(np.array(rows)))


def test_ids_come_in_the_order_asked_for(store):
    opened = StoredVectors(store)
    for positions in ([7, 0, 2, 2, 3, 7], [1], []):
        assert opened.ids_at(np.array(positions, np.int32)) == ["hgfedcba"[position] for position in positions]


def test_parts_cover_the_corpus_within_the_limit(store):
    opened, names = StoredVectors(store), ("tokens", "token_scales")
    whole = joined([shard(number) for number in range(3)])
    for limit in (None, 1, 16, 24, 10**6):
        positions = []
        for first, part in opened.parts(names, limit, (0, 1)):
            assert (part.dense is None and part.tokens.values.nbytes <= (limit or 10**6)) or len(part.tokens) == 1
            for place in range(len(part.tokens)):
                np.testing.assert_array_equal(part.tokens.row(place), whole.tokens.row(first + place))
            positions += range(first, first + len(part.tokens))
        assert positions == list(range(8)), limit
    shares = [[first for first, _ in opened.parts(names, None, (number, 2))] for number in (0, 1)]
    assert shares == [[0, 3], [2]]
    assert opened.nbytes(names) == whole.tokens.values.nbytes and opened.itemsize("tokens") == 8


def test_missing_heads_stay_missing(tmp_path):
    folder = Folder(tmp_path)
    write_shard(folder, 0, ["b", "a"], Vectors(dense=np.ones((2, 3), np.float32)))
    seal(folder, 1, {})
    opened = StoredVectors(tmp_path)
    found = opened.shard(0)
    assert found.tokens is None and found.term_ids is None and found.term_weights is None and len(found) == 2
    with pytest.raises(InputError, match=r"vectors.json: 'tokens' is missing\. Use a model"):
        opened.needed("tokens")


def test_texts_without_tokens_and_no_texts_at_all(tmp_path):
    folder = Folder(tmp_path)
    write_shard(folder, 0, ["b", "a"], Vectors(tokens=Ragged(np.zeros((0, 3), np.float32), np.zeros(3, np.int64))))
    write_shard(folder, 1, [], Vectors(tokens=Ragged(np.zeros((0, 3), np.float32), np.zeros(1, np.int64))))
    seal(folder, 2, {})
    opened = StoredVectors(tmp_path)
    assert opened.shard(0).tokens.values.shape == (0, 3) and opened.rows([1]).tokens.row(0).shape == (0, 3)
    assert opened.ids_at([0, 1]) == ["b", "a"]


def truncated(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def flipped(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def last_bit(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damaged", [truncated, flipped, last_bit, lambda file: file.unlink()])
def test_every_damaged_file_is_named(tmp_path, damaged):
    written(tmp_path / "whole", "int8")
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert len(files) == 1 + 3 * (2 + 2 * 10), "manifest, records and ids, and two files an array"
    for name in files:
        store = tmp_path / "damaged"
        shutil.copytree(tmp_path / "whole", store)
        damaged(store / name)
        with pytest.raises(InputError, match=rf"^{store / name}(:\d+)?: "):
            StoredVectors(store).check()
        shutil.rmtree(store)


def test_without_its_manifest_a_store_is_incomplete(store):
    (store / MANIFEST).unlink()
    for read in (StoredVectors, read_manifest):
        with pytest.raises(InputError, match=rf"^{store / MANIFEST}: .*no complete store"):
            read(store)


def test_a_store_of_another_format_is_refused(store):
    text = (store / MANIFEST).read_text().replace('"format": 3', '"format": 2')
    (store / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=r"format 2, not 3\. Run jaxret encode, into a new folder"):
        StoredVectors(store)


def test_a_shard_without_its_record_counts_for_nothing(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    write = Folder.write_array

    def killed(self, name, array):
        if name.endswith("term_ids"):
            raise KeyboardInterrupt
        return write(self, name, array)

    monkeypatch.setattr(Folder, "write_array", killed)
    with pytest.raises(KeyboardInterrupt):
        write_shard(folder, 0, IDS[0], shard(0))
    assert folder.names() and not has_shard(folder, 0)
    monkeypatch.undo()
    write_shard(folder, 0, IDS[0], shard(0))
    seal(folder, 1, {})
    assert_equal(StoredVectors(tmp_path).shard(0), shard(0))


def test_a_folder_may_have_any_name(tmp_path):
    for name in ("a b", "a%20b", "a#b", "a?b", "a|b", "%", "日本"):
        written(tmp_path / name)
        StoredVectors(tmp_path / name).check()
        assert (tmp_path / name / MANIFEST).is_file(), name
    assert len(list(tmp_path.iterdir())) == 7


def test_zeros_are_written_as_any_other_numbers(tmp_path):
    folder = Folder(tmp_path)
    write_shard(folder, 0, ["b", "a"], Vectors(dense=np.zeros((2, 3), np.float32)))
    seal(folder, 1, {})
    np.testing.assert_array_equal(StoredVectors(tmp_path).shard(0).dense, np.zeros((2, 3)))
    (tmp_path / "shard-00000/dense/c/0/0").unlink()
    with pytest.raises(InputError, match="shard-00000/dense/c/0/0: missing"):
        StoredVectors(tmp_path)


def test_integers_are_within_half_a_step(store):
    vectors, found = shard(2), decoded(stored_as(shard(2), "int8"))
    step = np.abs(vectors.tokens.values).max(axis=1, keepdims=True) / 127
    assert (np.abs(found.tokens.values - vectors.tokens.values) <= 0.5001 * step).all()
    assert np.abs(found.tokens.values - vectors.tokens.values).max() > 0.1 * step.max()
    zeros = stored_as(Vectors(dense=np.zeros((2, 3), np.float32)), "int8")
    np.testing.assert_array_equal(decoded(zeros).dense, 0)


def test_bfloat16_rounds_to_nearest(store):
    found = stored_as(shard(0), "bfloat16")
    assert found.dense.dtype == ml_dtypes.bfloat16 and found.dense_scales is None
    np.testing.assert_array_equal(decoded(found).dense, shard(0).dense.astype(ml_dtypes.bfloat16).astype(np.float32))
    with pytest.raises(InputError, match=r"^dtype: unknown 'int4'\. Choose one of float32, bfloat16, int8"):
        stored_as(shard(0), "int4")


def test_shards_cover_the_corpus():
    assert list(shard_bounds(7, 3)) == [(0, 3), (3, 6), (6, 7)]
    assert list(shard_bounds(6, 3)) == [(0, 3), (3, 6)]
    assert list(shard_bounds(0, 3)) == []
