import ml_dtypes
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.nn.convert.tensor_files import open_tensors
from jaxret.runtime.layouts.torch_file import write_torch_file


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


def test_integers_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match=r"tensor ids: int64 has no place in a torch file.*float32"):
        write_torch_file(tmp_path / "head.pt", [("ids", np.arange(3))])
    assert not list(tmp_path.iterdir())
