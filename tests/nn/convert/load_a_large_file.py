"""Run by test_streaming.py in a process of its own: writes or loads 600 MB of parameters and prints the extra memory.

`python load_a_large_file.py write|load FOLDER DTYPE NUM_DEVICES` prints one JSON object, sizes in bytes.
"""

# ruff: noqa: E402 (the environment comes before jax)

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ACTION, FOLDER, DTYPE, DEVICES = sys.argv[1:]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"

import jax
import ml_dtypes  # noqa: F401 (names bfloat16 for numpy)
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.nn.convert.table import Rule, Table
from jaxret.nn.convert.tensor_files import open_tensors, write_safetensors
from jaxret.runtime.mesh import device_mesh

LAYERS, WIDTH, HIDDEN, VOCAB = 24, 1024, 2560, 20_000
TABLE = Table(
    (
        Rule("embed.weight", "embedding"),
        Rule("layers.{layer}.up.weight", "layers/up/kernel", transposed=True),
        Rule("layers.{layer}.down.weight", "layers/down/kernel", transposed=True),
        Rule("norm.weight", "norm/scale"),
    )
)
LARGEST = VOCAB * WIDTH * np.dtype(DTYPE).itemsize


def memory(field: str) -> int:
    """Bytes of this process: VmHWM, the peak, or VmRSS. ru_maxrss would begin at the peak of the parent process."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status).group(1)) * 1024


def tensors(layers: int, width: int, hidden: int, vocab: int) -> Iterator[tuple[str, np.ndarray]]:
    random = np.random.default_rng(0)

    def values(rows: int, columns: int) -> np.ndarray:
        return random.integers(-100, 100, size=(rows, columns), dtype=np.int8).astype(DTYPE)

    yield "embed.weight", values(vocab, width)
    yield "norm.weight", values(1, width)[0]
    for layer in range(layers):
        yield f"layers.{layer}.up.weight", values(hidden, width)
        yield f"layers.{layer}.down.weight", values(width, hidden)


def loaded(folder: Path, layers: int, width: int, hidden: int, vocab: int) -> dict:
    mesh = device_mesh((1, int(DEVICES), 1))

    def like(*shape: int, axis: int) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec(*("fsdp" if axis == i else None for i in range(len(shape))))
        return jax.ShapeDtypeStruct(shape, np.float32, sharding=NamedSharding(mesh, spec))

    up, down = like(layers, width, hidden, axis=1), like(layers, hidden, width, axis=2)
    abstract = {"layers": {"up": {"kernel": up}, "down": {"kernel": down}}}
    abstract |= {"embedding": like(vocab, width, axis=1), "norm": {"scale": like(width, axis=0)}}
    return jax.block_until_ready(TABLE.loaded(open_tensors(folder), abstract))


def main() -> None:
    folder = Path(FOLDER)
    warm = folder / "warm"
    write_safetensors(warm, tensors(2, 64, 64, 64))
    params = loaded(warm, 2, 64, 64, 64) if ACTION == "load" else {}
    before = memory("VmRSS")
    if ACTION == "write":
        write_safetensors(folder, tensors(LAYERS, WIDTH, HIDDEN, VOCAB), max_shard_bytes=200e6)
    else:
        params = loaded(folder, LAYERS, WIDTH, HIDDEN, VOCAB)
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) if ACTION == "load" else 0
    extra = memory("VmHWM") - before - num_bytes
    print(json.dumps({"params": num_bytes, "extra": extra, "largest": LARGEST}))


if __name__ == "__main__":
    main()
