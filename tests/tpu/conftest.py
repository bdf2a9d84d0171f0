"""Real TPU topologies, compiled for by libtpu on a machine without a TPU."""

import pytest
from jax.experimental import topologies

from jaxret.runtime.compiled.costs import COLLECTIVES, held_bytes
from jaxret.runtime.compiled.hlo import Program
from jaxret.runtime.mesh import device_mesh

GIB = 2**30
HBM = {"v5e": 16 * GIB, "v5p": 95 * GIB}


@pytest.fixture(scope="session")
def tpu_mesh():
    """`(topology name, mesh shape) -> Mesh`."""

    def mesh(name: str, shape: tuple[int, int, int] = (-1, 1, 1)):
        topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
        return device_mesh(shape, topology.devices)

    return mesh


def memory(compiled) -> str:
    """What a chip must hold at once, in words."""
    m = compiled.memory_analysis()
    parts = {"arguments": m.argument_size_in_bytes, "temporaries": m.temp_size_in_bytes}
    words = ", ".join(f"{size / GIB:.2f} {name}" for name, size in parts.items())
    return f"{held_bytes(compiled) / GIB:.2f} GiB a chip ({words})"


def collectives(compiled) -> list[tuple[str, str, str]]:
    """(kind, operation, shapes) of every collective; the operation is where in our code it comes from."""
    program = Program(compiled.as_text())
    return [
        (kind, each.operation, " ".join(f"{value.dtype}[{','.join(map(str, value.shape))}]" for value in each.result))
        for computation in program.computations.values()
        for each in computation.instructions.values()
        if (kind := each.opcode.removesuffix("-start")) in COLLECTIVES
    ]
