"""Against the safetensors library, both ways; shards and their index; damaged files."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxret.errors import InputError
from jaxret.nn.convert.tensor_files import open_tensors, write_safetensors
from tests.nn.convert.test_safe_pickle import PICKLES

MODEL, INDEX = "model.safetensors", "model.safetensors.index.json"


def some_tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    grid = random.normal(size=(3, 4))
    return {
        "z.ids": random.integers(0, 9, size=(2, 3)),
        "a.weight": grid.astype(np.float32),
        "b.weight": grid.astype(ml_dtypes.bfloat16),
        "猫.weight": grid.astype(np.float16),
        "mask": grid[0] > 0,
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "bytes": np.arange(5, dtype=np.uint8),
    }


def assert_equal(found, wanted):
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        values = found[name].read()
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype) == (values.shape, values.dtype)
        assert values.tobytes() == array.tobytes(), name


@pytest.fixture
def floats():
    return {f"layers.{i}.weight": np.full((2, 4), i, np.float32) for i in range(5)}


def test_what_the_library_wrote_is_read(tmp_path):
    save_file(some_tensors(), tmp_path / MODEL)
    assert_equal(open_tensors(tmp_path), some_tensors())
    assert_equal(open_tensors(tmp_path / MODEL), some_tensors())


@pytest.mark.parametrize("order", [1, -1])
def test_files_are_the_librarys_to_the_byte(tmp_path, order):
    save_file(some_tensors(), tmp_path / "theirs", metadata={"format": "pt"})
    write_safetensors(tmp_path / "ours", list(some_tensors().items())[::order])
    assert (tmp_path / "ours" / MODEL).read_bytes() == (tmp_path / "theirs").read_bytes()


def test_what_we_wrote_the_library_reads(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", some_tensors().items(), metadata={})
    found = load_file(tmp_path / "x.safetensors")
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in some_tensors().items()
    }


def test_strides_and_byte_order_do_not_matter(tmp_path):
    grid = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_safetensors(tmp_path, [("transposed", grid.T), ("big", grid.astype(">f4"))])
    assert_equal(open_tensors(tmp_path), {"transposed": np.array(grid.T, order="C"), "big": grid})


def test_shards_and_their_index(tmp_path, floats):
    write_safetensors(tmp_path, floats.items(), max_shard_bytes=64)
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, INDEX])
    record = json.loads((tmp_path / INDEX).read_text())
    assert record["metadata"] == {"total_parameters": 40, "total_size": 160}
    assert record["weight_map"] == {f"layers.{i}.weight": names[i // 2] for i in range(5)}
    assert_equal(open_tensors(tmp_path), floats)


def test_a_tensor_larger_than_a_shard_has_one_of_its_own(tmp_path, floats):
    write_safetensors(tmp_path, floats.items(), max_shard_bytes=1)
    assert len(list(tmp_path.glob("model-*-of-00005.safetensors"))) == 5
    assert_equal(open_tensors(tmp_path), floats)


def test_shards_made_by_transformers_rules_can_be_torch_pickles(tmp_path):
    for number, name in enumerate(("zip.bin", "legacy.bin")):
        shutil.copy(PICKLES / name, tmp_path / f"pytorch_model-{number}.bin")
    shards = {"float32": "pytorch_model-0.bin", "bfloat16": "pytorch_model-1.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))
    whole = open_tensors(PICKLES / "zip.bin")
    assert_equal(open_tensors(tmp_path), {name: whole[name].read() for name in shards})


def test_weights_of_before_are_replaced(tmp_path, floats):
    (tmp_path / "config.json").write_text("{}")
    for max_shard_bytes in (64, 1e9, 32):
        write_safetensors(tmp_path, floats.items(), max_shard_bytes=max_shard_bytes)
        assert_equal(open_tensors(tmp_path), floats)
    assert len(list(tmp_path.iterdir())) == 5 + 1 + 1


def test_a_failure_leaves_what_was_there(tmp_path, floats):
    write_safetensors(tmp_path, floats.items())

    def failing():
        yield "other", np.zeros(100, np.float32)
        yield "another", np.zeros(100, np.float32)
        raise RuntimeError("the power went")

    for target in (tmp_path, tmp_path / MODEL):
        with pytest.raises(RuntimeError, match="power"):
            write_safetensors(target, failing(), max_shard_bytes=1)
        assert [path.name for path in tmp_path.iterdir()] == [MODEL]
        assert_equal(open_tensors(tmp_path), floats)


@pytest.mark.parametrize("max_shard_bytes", [1, 1e9])
def test_a_name_twice_is_refused(tmp_path, max_shard_bytes):
    with pytest.raises(InputError, match="tensor a twice"):
        write_safetensors(tmp_path, [("a", np.zeros(2)), ("a", np.zeros(2))], max_shard_bytes=max_shard_bytes)


def test_a_dtype_that_the_format_lacks_is_refused(tmp_path):
    with pytest.raises(InputError, match="tensor a is complex128"):
        write_safetensors(tmp_path, [("a", np.zeros(2, np.complex128))])


def test_every_truncation_is_an_error_that_names_the_file(tmp_path, floats):
    path = tmp_path / MODEL
    write_safetensors(path, floats.items())
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError) as error:
            open_tensors(tmp_path)
        assert error.value.place == str(path) and "Download" in error.value.fix


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"x": []},
        {"x": GOOD | {"shape": [3]}},
        {"x": GOOD | {"shape": [-2]}},
        {"x": GOOD | {"shape": [2.0]}},
        {"x": GOOD | {"dtype": "F7"}},
        {"x": GOOD | {"dtype": []}},
        {"x": GOOD | {"data_offsets": [0]}},
        {"x": GOOD | {"data_offsets": [8, 0]}},
        {"x": GOOD | {"data_offsets": [8, 16]}},
        {"x": GOOD, "y": GOOD},
        {"x": GOOD | {"data_offsets": [0, 2**70], "shape": [2**68]}},
    ],
    ids=str,
)
def test_headers_that_lie_are_refused(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / MODEL).write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(InputError, match="header"):
        open_tensors(tmp_path)


def test_a_good_header_of_the_same_make_is_read(tmp_path):
    text = json.dumps({"x": GOOD}).encode()
    (tmp_path / MODEL).write_bytes(len(text).to_bytes(8, "little") + text + np.ones(2, "<f4").tobytes())
    assert open_tensors(tmp_path)["x"].read().tolist() == [1, 1]


def test_a_file_that_shrank_since_it_was_opened(tmp_path, floats):
    write_safetensors(tmp_path, floats.items())
    tensor = open_tensors(tmp_path)["layers.4.weight"]
    path = tmp_path / MODEL
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="changed since"):
        tensor.read()


def test_git_lfs_pointers_are_named(tmp_path):
    (tmp_path / MODEL).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(InputError, match="git lfs pull"):
        open_tensors(tmp_path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "no weight_map"),
        ({"weight_map": {"a": 1}}, "no weight_map"),
        ({"weight_map": {"a": "../model.safetensors"}}, "not a file name"),
        ({"weight_map": {"a": INDEX}}, "not a file name"),
        ({"weight_map": {"a": "gone.safetensors"}}, "gone.safetensors: no such file"),
        ({"weight_map": {"layers.0.weight": "x.safetensors", "q": "x.safetensors"}}, "1 tensors are not in .*: q"),
    ],
    ids=str,
)
def test_indexes_that_lie_are_refused(tmp_path, floats, record, message):
    write_safetensors(tmp_path / "x.safetensors", floats.items())
    (tmp_path / INDEX).write_text(json.dumps(record))
    with pytest.raises(InputError, match=message):
        open_tensors(tmp_path)


def test_folders_and_files_without_weights(tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"")
    for path, message in ((tmp_path, "no weights"), (tmp_path / "a.bin", "no such"), (tmp_path / "weights.h5", "kind")):
        with pytest.raises(InputError, match=message):
            open_tensors(path)
