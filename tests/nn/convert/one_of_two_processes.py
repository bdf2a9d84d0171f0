"""Run twice by test_processes.py: loads a folder onto a mesh over both processes, saves it again, compares.

`python one_of_two_processes.py FOLDER PORT RANK`
"""

# ruff: noqa: E402 (the environment comes before jax)

import os
import sys

FOLDER, PORT, RANK = sys.argv[1:]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax

jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{PORT}", num_processes=2, process_id=int(RANK))

from jaxret.nn.convert.tensor_files import open_tensors
from jaxret.runtime.mesh import device_mesh
from tests.nn.convert.test_table import TABLE, abstract

tensors = open_tensors(FOLDER)
params = TABLE.loaded(tensors, abstract(device_mesh((2, 2, 2))))
assert not params["encoder"]["token_embedding"].is_fully_addressable
found = dict(TABLE.saved(params))
assert set(found) == set(tensors)
assert all(found[name].tobytes() == tensor.read().tobytes() for name, tensor in tensors.items())
print("the same")
