"""Compiles exact search for TPU topologies and writes what 100 million passages cost into docs/search.md.

    PYTHONPATH=.venv/libtpu TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu python -m benchmarks.tpu.search

Late interaction: passages of 128 tokens x 128, int8 with scales, or of 768 dense bfloat16 numbers; 64 queries of 32
tokens, bfloat16 if not named. The program of a block for each chip is compiled, and takes as many turns as the passages
need. The cycles of the kernel of MaxSim come from its schedule.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.tpu.kernels import DUMPED, grid, schedule, walked
from benchmarks.tpu.table import CLOCK, DEVICE, GIB, HBM_RATE
from jaxret.files import atomic
from jaxret.ops.block_scores import QueryTokens, Rows, Tiles, multi_vector_scores
from jaxret.ops.topk import TopK
from jaxret.runtime.compiled.costs import KERNEL, costs, held_bytes
from jaxret.runtime.compiled.hlo import Program
from jaxret.runtime.maxsim_kernel import kernel_scores
from jaxret.runtime.mesh import AXES, device_mesh
from jaxret.search.blocks import MODES, SIZES, tile_documents
from jaxret.search.on_devices import programs
from jaxret.train.throughput import peak_flops

PASSAGES, QUERIES, QUERY_TOKENS, TOKENS, WIDTH, DENSE, K = 10**8, 64, 32, 128, 128, 768, 100
TOPOLOGIES = ("v5e:16x16", "v5p:4x4x4")
CORES = {"v5e": 1, "v5p": 2}  # that share the steps of a kernel
WIDE = "float32 queries"
SEARCHES = {
    "multi_vector, plain": ("multi_vector", multi_vector_scores, ("int8", "bfloat16")),
    "multi_vector": ("multi_vector", MODES["multi_vector"].score, ("int8", "bfloat16")),
    f"multi_vector, {WIDE}": ("multi_vector", MODES["multi_vector"].score, ("int8", "bfloat16")),
    "dense": ("dense", MODES["dense"].score, ("bfloat16",)),
}
MARK = "<!-- benchmarks/tpu/search.py -->"


def inputs(mode: str, dtype: str, asked: str, mesh) -> tuple:
    """Shapes of the best so far, the queries of dtype `asked`, a block for each chip and its positions."""
    whole, spread = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXES))
    array = lambda shape, kind, sharding=spread: jax.ShapeDtypeStruct(shape, kind, sharding=sharding)  # noqa: E731
    n, sizes = mesh.devices.size, SIZES["tpu"]
    best = TopK(array((n, QUERIES, K), jnp.float32), array((n, QUERIES, K), jnp.int32))
    if mode == "dense":
        queries, count = array((QUERIES, DENSE), jnp.dtype(asked), whole), sizes.documents
        return best, queries, Rows(array((n, count, DENSE), jnp.dtype(dtype))), array((n, count), jnp.int32)
    tile = (n, sizes.tiles, tile_documents(TOKENS, sizes.tile_tokens), TOKENS)
    vectors = array((QUERIES, QUERY_TOKENS, WIDTH), jnp.dtype(asked), whole)
    queries = QueryTokens(vectors, array((QUERIES, QUERY_TOKENS), jnp.bool_, whole))
    scales = array(tile, jnp.float32) if dtype == "int8" else None
    block = Tiles(array((*tile, WIDTH), jnp.dtype(dtype)), array((n, sizes.tiles), jnp.bool_), scales)
    return best, queries, block, array((n, tile[1] * tile[2]), jnp.int32)


def kernel_cycles(program: Program, chip: str, queries: QueryTokens, block: Tiles, dump: Path) -> float:
    """Of the only kernel of a program, 0 without one."""
    names = [instruction.name for _, instruction, _ in program.run() if KERNEL in instruction.rest]
    if not names:
        return 0.0
    ((name,), local) = names, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), block)
    steps = math.prod(grid(jax.make_jaxpr(kernel_scores)(queries, local).jaxpr))
    return steps * walked(schedule(dump, name)) / CORES[chip]


def row(topology: str, name: str, dtype: str, dump: Path) -> str:
    """One line of the table."""
    chip, (mode, score, _) = topology[:3], SEARCHES[name]
    mesh = device_mesh(devices=topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    shapes = inputs(mode, dtype, "float32" if WIDE in name else "bfloat16", mesh)
    for old in dump.iterdir():
        old.unlink()
    compiled = programs(score, K, mesh).step.lower(*shapes).compile()
    program = Program(compiled.as_text())
    found = costs(program)
    cycles = sum(found.cycles.values()) + kernel_cycles(program, chip, *shapes[1:3], dump)
    documents = shapes[3].shape[1]
    turns = -(-PASSAGES // (documents * mesh.size))
    seconds = turns * cycles / CLOCK[chip]
    flops = 2 * QUERIES * documents * (DENSE if mode == "dense" else QUERY_TOKENS * TOKENS * WIDTH)
    block = sum(x.size // mesh.size * x.dtype.itemsize for x in jax.tree.leaves(shapes[2]))
    peak, arithmetic = peak_flops(DEVICE[chip]), turns * flops / peak_flops(DEVICE[chip])
    cells = [
        f"{name}, {dtype}",
        topology,
        f"{turns * block / GIB:.1f}",
        f"{held_bytes(compiled) / GIB:.2f}",
        f"{found.traffic / 2**20:,.0f}",
        f"{cycles / 1e6:.2f}",
        f"{seconds * 1e3:,.1f}",
        f"{arithmetic * 1e3:,.1f}",
        f"{turns * block / HBM_RATE[chip] * 1e3:,.1f}",
        f"{turns * flops / seconds / peak:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Compiles, writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/search.md"))
    output = parser.parse_args().output
    lines = [
        "| search | chips | corpus a chip, GiB | program a chip, GiB | HBM traffic a block, MiB "
        "| million cycles a block | all blocks, ms | at the products' peak, ms | at HBM's rate, ms | share of peak |",
        "|" + "---|" * 10,
    ]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIBTPU_INIT_ARGS"] = DUMPED.format(folder)
        for topology in TOPOLOGIES:
            lines += [row(topology, name, dtype, Path(folder)) for name in SEARCHES for dtype in SEARCHES[name][2]]
    before, _, after = output.read_text().split(MARK)
    with atomic(output) as file:
        file.write(f"{before}{MARK}\n" + "\n".join(lines) + f"\n{MARK}{after}")


if __name__ == "__main__":
    main()
