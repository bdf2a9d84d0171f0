import ml_dtypes
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.nn.convert.safe_pickle import listed_tensors
from jaxret.nn.convert.tensor_files import open_tensors
from jaxret.runtime.layouts.torch_file import write_torch_file, write_torch_value


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_written_file_is_read_again(tmp_path, dtype):
    random = np.random.default_rng(0)
    arrays = {"weight": random.normal(size=(3, 300)).astype(dtype), "bias": random.normal(size=3).astype(dtype)}
    arrays |= {"turned": arrays["weight"].T, "one": np.ones((), dtype)}
    write_torch_file(tmp_path / "head.pt", arrays.items())
    found = open_tensors(tmp_path / "head.pt")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(found[name].read(), array)


def test_a_dtype_without_a_place_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match=r"tensor ids: complex64 has no place in a torch file.*float32"):
        write_torch_file(tmp_path / "head.pt", [("ids", np.zeros(3, np.complex64))])
    with pytest.raises(InputError, match=r"ids\.pt: complex64 has no place"):
        write_torch_value(tmp_path / "ids.pt", np.zeros(3, np.complex64))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64, np.uint8])
def test_one_tensor_and_a_tuple_are_read_again(tmp_path, dtype):
    grid = np.arange(12).reshape(3, 4).astype(dtype)
    write_torch_value(tmp_path / "one.pt", grid.T)
    (found,) = listed_tensors(tmp_path / "one.pt")
    np.testing.assert_array_equal(found.read(), grid.T)
    write_torch_value(tmp_path / "two.pt", (grid, np.asarray(3, dtype)))
    first, second = (tensor.read() for tensor in listed_tensors(tmp_path / "two.pt"))
    np.testing.assert_array_equal(first, grid)
    assert second.shape == () and second == 3 and second.dtype == dtype
    again = (tmp_path / "two.pt").read_bytes()
    write_torch_value(tmp_path / "two.pt", (grid, np.asarray(3, dtype)))
    assert (tmp_path / "two.pt").read_bytes() == again, "no time of day is in it"


def test_a_dict_is_no_list_of_tensors(tmp_path):
    write_torch_file(tmp_path / "head.pt", [("weight", np.zeros(3, np.float32))])
    with pytest.raises(InputError, match="holds no tensor, nor a tuple"):
        listed_tensors(tmp_path / "head.pt")
