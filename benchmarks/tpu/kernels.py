"""Cycles of the TPU kernels, from the schedules that the compiler makes of them: it gives no estimate of a kernel.

    PYTHONPATH=.venv/libtpu python -m benchmarks.tpu.kernels 64 128 768 64

prints {signature: cycles} of the kernels for 64 texts of 128 tokens, 768 wide, in heads of 64. A kernel's body is
straight code, so its cycles are those of its bundles of instructions, with their waits for a busy unit of products,
times the steps of its grid.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]
DUMPED = "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true"  # compiler settings, read once by a process
ROWS = 16  # of bfloat16 that an instruction gives to a unit of products, which takes one a cycle


def cycles(rows: int, length: int, width: int, head_width: int) -> dict[str, int]:
    """As the command; in a process of its own, since the compiler reads its settings once."""
    arguments = [sys.executable, "-m", "benchmarks.tpu.kernels", *map(str, (rows, length, width, head_width))]
    return json.loads(subprocess.run(arguments, cwd=HERE, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def programs(rows: int, length: int, width: int, head_width: int) -> Iterator[tuple[Callable, tuple]]:
    """Functions of one kernel each, with the shapes of their arguments."""
    import jax
    import jax.numpy as jnp

    from jaxret.runtime import normalization, short_attention

    states = jax.ShapeDtypeStruct((rows, length, width), jnp.bfloat16)
    row = jax.ShapeDtypeStruct((width,), jnp.float32)
    kept = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    forward, backward = short_attention._forward_kernel, short_attention._backward_kernel

    def attention(kernel: Any, outputs: int, axis: int, kept: Any, *arrays: Any) -> Any:
        return short_attention._run(kernel, arrays, jnp.expand_dims(kept, axis), outputs, head_width, False)

    if length % short_attention.LANES == 0 and length <= short_attention.UNROLLED:
        yield functools.partial(attention, forward, 1, 1), (kept, states, states, states)
        yield functools.partial(attention, backward, 3, 2), (kept, states, states, states, states)
    norm = functools.partial(normalization.kernel_norm, kind="layer", epsilon=1e-6)
    yield norm, (states, row, row)
    yield lambda x, s, b, g: normalization._backward("layer", 1e-6, False, (x, s, b), g), (states, row, row, states)


def scheduled(function: Callable, shapes: tuple, dump: Path) -> tuple[str, int]:
    """The signature and the cycles of a function's kernel."""
    import jax
    from jax.experimental import topologies
    from jax.sharding import NamedSharding, PartitionSpec

    from jaxret.runtime.compiled.costs import KERNEL, signature
    from jaxret.runtime.compiled.hlo import Program
    from jaxret.runtime.mesh import device_mesh

    mesh = device_mesh((-1, 1, 1), topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices)
    whole = NamedSharding(mesh, PartitionSpec())
    everywhere = jax.shard_map(
        function, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False
    )
    placed = [jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=whole) for shape in shapes]
    program = Program(jax.jit(everywhere).lower(*placed).compile().as_text())
    ((computation, kernel),) = [(c, i) for c, i, _ in program.run() if KERNEL in i.rest]
    steps = math.prod(grid(jax.make_jaxpr(function)(*shapes).jaxpr))
    return signature(computation, kernel), steps * walked(schedule(dump, kernel.name))


def schedule(dump: Path, kernel: str) -> str:
    """The bundles of a kernel of the program that was compiled last; what the compiler has written is deleted."""
    (found,) = (path for path in dump.glob(f"*-{kernel}-*-final_bundles.txt") if path.name.split("-")[-2].isdigit())
    text = found.read_text()
    for path in dump.iterdir():
        path.unlink()
    return text


def walked(bundles: str) -> int:
    """Cycles of a schedule in straight code: a bundle takes one, and waits where a unit of products is still busy.

    For XLA's product of 4096 x 4096 x 4096 on a v5e it makes 1.07 million where the compiler's own estimate is 1.08,
    and the bundles alone are 0.87.
    """
    now, free = 0, dict[str, int]()
    for bundle in re.findall(r"^\s*0x[0-9a-f]+\s.*", bundles, re.MULTILINE):
        products = re.findall(r"vmatmul\.([\w.]*)mxu(\d)", bundle)
        if any("bf16" not in kind for kind, _ in products):
            raise ValueError(f"not a product of bfloat16: {bundle[:200]}")
        now = max([now + 1, *(free.get(unit, 0) for _, unit in products)])
        free.update({unit: now + ROWS for _, unit in products})
    return max([now, *free.values()])


def grid(jaxpr: Any) -> tuple[int, ...]:
    """The grid of the only kernel in a traced function."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            return equation.params["grid_mapping"].grid
        for inner in equation.params.values():
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns") and (found := grid(inner)):
                return found
    return ()


def main() -> None:
    """Prints the table as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIBTPU_INIT_ARGS"] = DUMPED.format(folder)
        found = programs(*map(int, sys.argv[1:]))
        print(json.dumps(dict(scheduled(function, shapes, Path(folder)) for function, shapes in found)))


if __name__ == "__main__":
    main()
