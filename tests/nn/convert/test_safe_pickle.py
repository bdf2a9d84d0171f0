"""Against files that torch wrote (tests/parity/make_pickles.py), damaged ones and hostile ones."""

import os
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.nn.convert.safe_pickle import LEGACY_MAGIC, LEGACY_PROTOCOL, pickled_tensors

PICKLES = Path(__file__).parents[2] / "goldens" / "pickles"
KINDS = ("zip.bin", "legacy.bin")


def rezipped(path: Path, target: Path, compression: int = zipfile.ZIP_STORED, **changed: bytes) -> Path:
    """A copy of a torch file with other contents under some names."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        root = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            short = name.removeprefix(f"{root}/")
            new.writestr(name, changed.pop(short.replace(".", "_").replace("/", "_"), None) or old.read(name))
    assert not changed
    return target


def legacy(target: Path, value: bytes, keys: tuple[str, ...] = (), little: bool = True) -> Path:
    """A plain stream as torch wrote it before 1.6, with `value` as the pickle of its contents."""
    parts = [LEGACY_MAGIC, LEGACY_PROTOCOL, {"little_endian": little}]
    target.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts) + value + pickle.dumps(list(keys), 2))
    return target


class Call:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_equals_torchs_to_the_bit(kind):
    tensors = pickled_tensors(PICKLES / kind)
    wanted = np.load(PICKLES / "values.npz")
    assert list(tensors) == wanted.files
    for name, tensor in tensors.items():
        found = tensor.read()
        assert found.shape == tensor.shape and found.dtype == tensor.dtype
        assert found.astype(np.float64).tobytes() == wanted[name].tobytes(), name


@pytest.mark.parametrize("kind", KINDS)
def test_dtypes_are_the_files_own(kind):
    tensors = pickled_tensors(PICKLES / kind)
    for name in ("float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"):
        assert tensors[name].dtype == np.dtype(name)
    assert tensors["bfloat16"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_readings_cannot_be_written_to(kind):
    with pytest.raises(ValueError, match="read-only"):
        pickled_tensors(PICKLES / kind)["float32"].read()[0, 0] = 1


def test_nested_dicts_have_dotted_names_and_the_rest_is_left_out():
    assert list(pickled_tensors(PICKLES / "nested.pt")) == ["model.a", "model.b.c"]


def test_metadata_of_a_state_dict_is_passed_over():
    assert {name: t.shape for name, t in pickled_tensors(PICKLES / "state_dict.pt").items()} == {
        "weight": (2, 3),
        "bias": (2,),
    }


def test_dtypes_without_a_storage_class():
    x = pickled_tensors(PICKLES / "version_3.pt")["x"]
    assert x.dtype == np.uint16 and x.read().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "message"),
    [("bare.pt", "holds no named tensors"), ("module.pt", "asks for torch.nn.modules.linear.Linear")],
)
def test_what_is_no_dict_of_tensors_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        pickled_tensors(PICKLES / name)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_a_malicious_pickle_raises_and_does_not_run(tmp_path, kind, protocol):
    mark = tmp_path / "ran"
    payload = pickle.dumps({"weight": Call(os.system, f"touch {mark}")}, protocol)
    target = tmp_path / "hostile.bin"
    path = rezipped(PICKLES / "zip.bin", target, data_pkl=payload) if kind == "zip" else legacy(target, payload)
    with pytest.raises(InputError, match=r"asks for posix\.system, which is no part of a tensor"):
        pickled_tensors(path)
    assert not mark.exists()
    pickle.loads(payload)
    assert mark.exists(), "the payload itself must work, or this test proves nothing"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("collections", "OrderedDict.__init__"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch.storage", "_load_from_bytes"),
        ("torch", "load"),
        ("jaxret.nn.convert.safe_pickle", "os"),
    ],
)
def test_other_globals_are_refused_by_name(tmp_path, module, name):
    payload = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)) + b"\x93."
    with pytest.raises(InputError) as error:
        pickled_tensors(legacy(tmp_path / "x.bin", payload))
    assert f"{module}.{name}" in str(error.value)


@pytest.mark.parametrize(
    "stand_in",
    ["torch._utils\n_rebuild_tensor_v2", "torch\nFloatStorage", "torch\nfloat32", "collections\nOrderedDict"],
)
@pytest.mark.parametrize("state", [b"}\x8c\x05shapeK\x01s", b"N}\x8c\x05shapeK\x01s\x86"], ids=["dict", "slots"])
def test_a_pickle_cannot_set_attributes_of_what_it_is_given(tmp_path, stand_in, state):
    payload = b"\x80\x04c" + stand_in.encode() + b"\n" + state + b"b."
    with pytest.raises(InputError, match=r"not a readable torch file .(Attribute|Type)Error"):
        pickled_tensors(legacy(tmp_path / "x.bin", payload))


def legacy_tensor(target: Path, offset: object = 0, shape: object = (2, 2), strides: object = (2, 1)) -> Path:
    """A plain stream with {"x": a tensor over the storage of the floats 0, 1, 2, 3}."""

    def bare(value: object) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    storage = b"(" + bare("storage") + b"ctorch\nFloatStorage\n" + bare("0") + bare("cpu") + bare(4) + b"NtQ"
    args = storage + bare(offset) + bare(shape) + bare(strides) + b"\x89N"
    legacy(target, b"\x80\x02}" + bare("x") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + args + b"tRs.", ("0",))
    with open(target, "ab") as file:
        file.write((4).to_bytes(8, "little") + np.arange(4, dtype="<f4").tobytes())
    return target


def test_a_tensor_that_fills_its_storage_is_read(tmp_path):
    assert pickled_tensors(legacy_tensor(tmp_path / "x.bin"))["x"].read().tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    "lie",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**62},
        {"offset": 0.5},
        {"shape": (2, 3)},
        {"shape": (2**40, 1), "strides": (1, 1)},
        {"shape": (2, -1)},
        {"strides": (-1, 1)},
        {"strides": (3, 1)},
        {"strides": (1,)},
        {"shape": (True, 2)},
        {"shape": 4},
    ],
    ids=str,
)
def test_a_tensor_that_leaves_its_storage_is_refused(tmp_path, lie):
    path = legacy_tensor(tmp_path / "x.bin", **lie)
    with open(path, "ab") as file:
        file.write(bytes(100))
    with pytest.raises(InputError):
        pickled_tensors(path)


def test_a_dict_in_two_places_is_refused(tmp_path):
    laughs = {"x": 1}
    for _ in range(60):
        laughs = {"a": laughs, "b": laughs}
    with pytest.raises(InputError, match="in two places"):
        pickled_tensors(legacy(tmp_path / "x.bin", pickle.dumps(laughs, 2)))


def test_a_huge_memo_index_allocates_nothing(tmp_path):
    with pytest.raises(InputError, match="holds no named tensors"):
        pickled_tensors(legacy(tmp_path / "x.bin", b"\x80\x02}r\xff\xff\xff\x1f."))


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_an_error_that_names_the_file(tmp_path, kind):
    whole = (PICKLES / kind).read_bytes()
    path = tmp_path / kind
    for size in range(0, len(whole), 23):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError) as error:
            pickled_tensors(path)
        assert error.value.place == str(path) and error.value.fix


def test_damaged_bytes_never_crash(tmp_path):
    whole = (PICKLES / "legacy.bin").read_bytes()
    path = tmp_path / "damaged.bin"
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            for tensor in pickled_tensors(path).values():
                tensor.read().sum()
        except InputError:
            refused += 1
    assert refused > 25


def test_big_endian_is_refused(tmp_path):
    for path in (
        rezipped(PICKLES / "zip.bin", tmp_path / "zip.bin", byteorder=b"big"),
        legacy(tmp_path / "legacy.bin", pickle.dumps({}, 2), little=False),
    ):
        with pytest.raises(InputError, match="big-endian"):
            pickled_tensors(path)


def test_compressed_zip_is_refused(tmp_path):
    with pytest.raises(InputError, match="compressed"):
        pickled_tensors(rezipped(PICKLES / "zip.bin", tmp_path / "x.bin", zipfile.ZIP_DEFLATED))
