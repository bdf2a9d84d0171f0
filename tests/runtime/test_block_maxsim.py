"""The choice between the kernel and the plain MaxSim."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, PartitionSpec

from jaxret.ops import block_scores
from jaxret.runtime.block_maxsim import multi_vector_scores
from jaxret.runtime.mesh import AXES, device_mesh
from tests.runtime.test_maxsim_kernel import inputs


def program(mesh, queries, documents):
    """The text of a trace over a mesh."""
    specs, out = (PartitionSpec(), PartitionSpec(AXES)), PartitionSpec(None, AXES)
    sharded = jax.shard_map(multi_vector_scores, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)
    return str(jax.make_jaxpr(sharded)(queries, documents))


@pytest.mark.parametrize(("platform", "width", "kernel"), [("tpu", 128, 1), ("tpu", 64, 0), ("gpu", 128, 0)])
def test_a_mesh_of_tpus_has_the_kernel(platform, width, kernel):
    device = AbstractDevice(device_kind="any", num_cores=None, platform=platform)
    mesh = AbstractMesh((2, 1, 1), AXES, abstract_device=device)
    assert program(mesh, *inputs(k=width)).count("pallas_call") == kernel


def test_a_cpu_and_a_trace_without_a_mesh_have_the_plain_one():
    queries, documents = inputs()
    assert "pallas_call" not in program(device_mesh((2, 1, 1), jax.devices()[:2]), queries, documents)
    wanted = block_scores.multi_vector_scores(queries, documents)
    np.testing.assert_array_equal(multi_vector_scores(queries, documents), wanted)
