import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.runtime.precision import cast, compute_dtype, multiplies_bfloat16


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", jnp.float32), ("bfloat16", jnp.bfloat16), ("auto", jnp.float32)]
)
def test_a_name_is_a_dtype_and_auto_is_float32_on_cpu(name, dtype):
    assert compute_dtype(name) == dtype


def test_auto_is_bfloat16_on_accelerators(monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: "tpu")
    assert compute_dtype("auto") == jnp.bfloat16
    assert compute_dtype("float32") == jnp.float32


def test_an_unknown_name_is_an_input_error():
    with pytest.raises(InputError, match=r"precision: unknown 'fp16'.*auto, float32, bfloat16"):
        compute_dtype("fp16")


def test_only_floating_parameters_are_cast():
    params = {"kernel": jnp.ones((2, 2)), "ids": jnp.arange(3), "mask": jnp.array([True])}
    found = cast(params, jnp.dtype(jnp.bfloat16))
    assert [found[name].dtype for name in ("kernel", "ids", "mask")] == [jnp.bfloat16, jnp.int32, jnp.bool_]
    np.testing.assert_array_equal(found["ids"], params["ids"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True), ("avx512f avx512_bf16x", False), (None, False)],
)
def test_a_processor_says_whether_it_multiplies_bfloat16(tmp_path, flags, expected):
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(f"processor : 0\nflags\t\t: {flags}\n\n")
    assert multiplies_bfloat16(file) is expected
