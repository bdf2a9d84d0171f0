"""Real TPU topologies, compiled for by libtpu on a machine without a TPU."""

import re

import pytest
from jax.experimental import topologies

from jaxret.runtime.mesh import device_mesh

GIB = 2**30
HBM = {"v5e": 16 * GIB, "v5p": 95 * GIB}
COLLECTIVE = re.compile(r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")


@pytest.fixture(scope="session")
def tpu_mesh():
    """`(topology name, mesh shape) -> Mesh`."""

    def mesh(name: str, shape: tuple[int, int, int] = (-1, 1, 1)):
        topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
        return device_mesh(shape, topology.devices)

    return mesh


def hbm_bytes(compiled) -> int:
    """What a chip must hold at once: arguments, temporaries, and outputs that do not reuse an argument."""
    m = compiled.memory_analysis()
    return m.argument_size_in_bytes + m.temp_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes


def memory(compiled) -> str:
    """What a chip must hold at once, in words."""
    m = compiled.memory_analysis()
    parts = {"arguments": m.argument_size_in_bytes, "temporaries": m.temp_size_in_bytes}
    words = ", ".join(f"{size / GIB:.2f} {name}" for name, size in parts.items())
    return f"{hbm_bytes(compiled) / GIB:.2f} GiB a chip ({words})"


def collectives(compiled) -> list[tuple[str, str, str]]:
    """(kind, operation, shape) of every collective; the operation is where in our code it comes from."""
    found = []
    for line in compiled.as_text().splitlines():
        if match := COLLECTIVE.search(line):
            name = re.search(r'op_name="([^"]*)"', line)
            found.append((match[1], name[1] if name else "", line[: match.start()].split("=", 1)[1].strip()))
    return found
