"""Arrays onto the mesh and back: values, places, what the host keeps, and the peak of its memory."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.nn.convert.streaming import filled, host_copy, placed
from jaxret.nn.convert.tensor_files import write_safetensors
from jaxret.runtime.mesh import device_mesh
from tests.nn.convert.test_table import their_tensors

SPECS = [(), ("data",), (None, "fsdp"), (None, "fsdp", "tensor"), ("fsdp", None, "data"), (None, ("data", "tensor"))]
LOADER = Path(__file__).parent / "load_a_large_file.py"


def sharding(*spec):
    return NamedSharding(device_mesh((2, 2, 2)), PartitionSpec(*spec))


def grid(*shape, dtype=np.float32):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_placed_gives_each_device_its_slice(spec):
    array = grid(4, 8, 4)
    found = placed(array, np.float32, sharding(*spec))
    wanted = jax.device_put(array, sharding(*spec))
    assert found.sharding == wanted.sharding
    for a, b in zip(found.addressable_shards, wanted.addressable_shards, strict=True):
        assert (a.device, a.index) == (b.device, b.index)
        np.testing.assert_array_equal(a.data, b.data)


def at(offset, *shape):
    """A grid whose memory begins so many bytes after a multiple of 64: a CPU device borrows it at 0."""
    buffer = np.zeros(int(np.prod(shape)) * 4 + 128, np.uint8)
    start = -buffer.ctypes.data % 64 + offset
    array = buffer[start : start + buffer.size - 128].view(np.float32).reshape(shape)
    array[...] = grid(*shape)
    return array


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(
    "array", [at(0, 8, 512), at(16, 8, 512), at(0, 8, 512).T, at(0, 16, 512)[::2]], ids=["at 0", "at 16", "T", "steps"]
)
def test_placed_is_a_copy(array, devices):
    before = array.copy()
    found = placed(array, np.float32, sharding("data", "fsdp") if devices > 1 else None)
    array[...] = -1
    np.testing.assert_array_equal(found, before)


@pytest.mark.parametrize("theirs", [np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("ours", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_casts_are_numpys_for_every_half(theirs, ours):
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16 if theirs is np.float32 else theirs)
    array = halves[np.isfinite(halves.astype(np.float32)) & (np.abs(halves.astype(np.float32)) < 6e4)].astype(theirs)
    found = np.asarray(placed(array, ours))
    assert found.dtype == ours
    np.testing.assert_array_equal(found.astype(np.float32), array.astype(ours).astype(np.float32))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_filled_is_a_stack_in_its_place(spec):
    array = grid(4, 8, 4)
    like = jax.ShapeDtypeStruct(array.shape, jnp.float32, sharding=sharding(*spec))
    found = filled(like, ((layer, array[layer]) for layer in (2, 0, 3, 1)))
    assert found.sharding == like.sharding
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(("fill", "layers"), [(1.0, (1, 2)), (0.0, (0,)), (1.0, ())])
def test_layers_that_no_row_gives_are_filled(fill, layers):
    array = grid(3, 2, 2)
    found = filled(jax.ShapeDtypeStruct((3, 2, 2), jnp.bfloat16), [(i, array[i]) for i in layers], fill=fill)
    assert found.dtype == jnp.bfloat16
    for layer in range(3):
        np.testing.assert_array_equal(found[layer], array[layer] if layer in layers else np.full((2, 2), fill))


def test_a_stack_is_filled_in_place():
    like = jax.ShapeDtypeStruct((3, 2, 2), jnp.float32, sharding=sharding(None, "fsdp"))
    live = []

    def rows():
        for layer in range(3):
            live.append(sum(x.shape == (3, 2, 2) for x in jax.live_arrays()))
            yield layer, grid(2, 2)

    before = sum(x.shape == (3, 2, 2) for x in jax.live_arrays())
    filled(like, rows())
    assert [n - before for n in live] == [0, 1, 1]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("layer", [None, 3])
def test_host_copy_leaves_nothing_behind(spec, layer):
    array = grid(4, 8, 4)
    leaf = jax.device_put(array, sharding(*spec))
    np.testing.assert_array_equal(host_copy(leaf, layer), array if layer is None else array[layer])
    assert leaf._npy_value is None
    np.testing.assert_array_equal(host_copy(array, layer), array if layer is None else array[layer])


def extra_memory(action, folder, devices):
    command = [sys.executable, str(LOADER), action, str(folder), "bfloat16", str(devices)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(LOADER.parents[3])}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_600_megabytes_need_little_more_than_their_largest_tensor(tmp_path):
    slack = 100e6  # programs compiled meanwhile, and blocks that the allocator holds on to
    for action, devices in (("write", 1), ("load", 1), ("load", 8)):
        measured = extra_memory(action, tmp_path, devices)
        assert measured["params"] == (0 if action == "write" else 585_240_576)
        assert measured["extra"] < 2 * measured["largest"] + slack < 293e6, (action, devices, measured)


@pytest.mark.slow
def test_two_processes_load_and_save_what_neither_holds_alone(tmp_path):
    write_safetensors(tmp_path, their_tensors().items())
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = LOADER.with_name("one_of_two_processes.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), str(port), str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(LOADER.parents[3])},
        )
        for rank in (0, 1)
    ]
    try:
        for process in processes:
            output, errors = process.communicate(timeout=120)
            assert process.returncode == 0 and output.endswith("the same\n"), errors
    finally:
        for process in processes:
            process.kill()
