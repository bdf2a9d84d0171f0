import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.runtime.mesh import device_mesh
from jaxret.search.batches import BatchedModel

PARAMS = {"layers": {"scale": jnp.arange(1.0, 3.0)}}
LENGTHS = [3, 40, 17, 9, 40, 70, 1, 16]


def summed(params, ids, sign):
    scales = [params[f"layers_{i}"]["scale"] for i in range(2)] if "layers_0" in params else params["layers"]["scale"]
    return jnp.sum(ids, axis=1) * scales[1] * (1.0 if sign == "plus" else -1.0)


def arrays(chosen, length):
    ids = np.zeros((len(chosen), length), np.int32)
    for place, row in enumerate(chosen):
        ids[place, : LENGTHS[row]] = row + 1
    return (ids,)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_every_row_comes_back_under_its_number(devices):
    mesh = device_mesh((devices, 1, 1), jax.devices()[:devices])
    batched = BatchedModel(summed, PARAMS, mesh, batch_tokens=80)
    for sign in ("plus", "minus", "plus"):
        found = np.full(len(LENGTHS), np.nan)
        for chosen, values in batched.run(LENGTHS, arrays, sign=sign):
            assert isinstance(values, np.ndarray) and len(values) % devices == 0
            found[chosen] = values[: len(chosen)]
        expected = np.arange(1, 1 + len(LENGTHS)) * LENGTHS * 2.0
        np.testing.assert_array_equal(found, expected if sign == "plus" else -expected)
    assert max(rows * length for rows, length in batched.shapes) <= 80 * devices


def test_rows_of_a_batch_can_be_bounded():
    batched = BatchedModel(summed, PARAMS, device_mesh((1, 1, 1), jax.devices()[:1]), batch_tokens=1000)
    assert [len(chosen) for chosen, _ in batched.run(LENGTHS, arrays, 3, sign="plus")] == [3, 3, 2]


def test_what_is_wrong_in_a_thread_is_raised_here():
    batched = BatchedModel(summed, PARAMS, device_mesh((1, 1, 1), jax.devices()[:1]), batch_tokens=40)

    def broken(params, *inputs):
        assert threading.current_thread() is not threading.main_thread()
        raise RuntimeError("the device is gone")

    batched._program = lambda inputs, settings: broken
    with pytest.raises(RuntimeError, match="the device is gone"):
        list(batched.run(LENGTHS, arrays, sign="plus"))


def test_a_caller_who_stops_leaves_nothing_running():
    batched = BatchedModel(summed, PARAMS, device_mesh((1, 1, 1), jax.devices()[:1]), batch_tokens=16)
    before = threading.active_count()
    batches = batched.run(LENGTHS, arrays, 1, sign="plus")
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_programs_are_traced_where_the_callers_configuration_holds():
    places = []

    def traced(params, ids, sign):
        places.append((threading.current_thread(), jax.config.jax_default_matmul_precision))
        return summed(params, ids, sign)

    batched = BatchedModel(traced, PARAMS, device_mesh((1, 1, 1), jax.devices()[:1]), batch_tokens=40)
    with jax.default_matmul_precision("float32"):
        list(batched.run(LENGTHS, arrays, sign="plus"))
    assert set(places) == {(threading.main_thread(), "float32")} and len(places) == len(batched.shapes)
