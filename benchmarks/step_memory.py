"""Memory and time of one training step over the batch size: plain, gradient caching, tiled scores, both.

    .venv/bin/python benchmarks/step_memory.py
    .venv/bin/python benchmarks/step_memory.py --pairs 65536 --ways cached_tiled

A dense encoder from scratch (2 layers, 128 wide, 8,000 pieces), queries of 16 and passages of 32 random ids, AdamW, one
device. Each step runs in a process of its own, twice, the second time measured; the memory is the most that the process
held of its own, files aside.
"""

import argparse
import functools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

WAYS = {"plain": (0, False), "cached": (256, False), "tiled": (0, True), "cached_tiled": (256, True)}


def step(pairs: int, way: str) -> dict[str, float]:
    """Runs in a process of its own."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxret.data.text import TextConfig
    from jaxret.nn.config import EncoderConfig
    from jaxret.nn.retriever import RetrieverConfig
    from jaxret.runtime.mesh import device_mesh
    from jaxret.runtime.model import Model
    from jaxret.train.objectives.contrastive import contrast
    from jaxret.train.objectives.represented import objective_over
    from jaxret.train.objectives.tiled import tiled_contrast
    from jaxret.train.optimizers import adamw
    from jaxret.train.program import global_batch, step_program
    from jaxret.train.start import begun

    chunk_rows, tiled = WAYS[way]

    class Pieces:
        size, begin, end, special_ids, mask_id = 8000, (), (), (), None

    sizes = EncoderConfig(vocab_size=8000, width=128, num_layers=2, num_heads=4, mlp_width=256)
    text = TextConfig(query_max_len=16, passage_max_len=32, query_expansion=False)
    config = RetrieverConfig(sizes, heads=("dense",), pooling="mean")
    pieces: Any = Pieces()
    model = Model(config, text, pieces, chunk_rows=chunk_rows)
    compare = functools.partial(
        tiled_contrast if tiled else contrast, temperature={"dense": 0.05}, weight={"dense": 1.0}
    )
    objective, mesh, optimizer = objective_over([compare]), device_mesh((1, 1, 1)), adamw(10, learning_rate=1e-3)
    program, abstract = step_program(model, objective, optimizer, 0, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    state = jax.jit(lambda: begun(model, objective, optimizer, 0, model.init(0)), out_shardings=shardings)()
    random = np.random.default_rng(0)
    batch = {
        "query": random.integers(3, 8000, (pairs, 16), np.int32),
        "passage": random.integers(3, 8000, (pairs, 1, 32), np.int32),
        "passage_key": np.arange(pairs, dtype=np.int32)[:, None],
    }
    arrays = global_batch(batch, mesh)
    state, _ = jax.block_until_ready(program(state, arrays))
    peak = _Peak()
    start = time.perf_counter()
    state, metrics = jax.block_until_ready(program(state, arrays))
    seconds = time.perf_counter() - start
    assert jnp.isfinite(metrics["loss"])
    return {"seconds": seconds, "GiB": peak.stop() / 2**20, "loss": float(metrics["loss"])}


class _Peak:
    """The most anonymous memory from now on, in KiB."""

    def __init__(self):
        self._most, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self):
        while not self._done.wait(0.01):
            lines = Path("/proc/self/status").read_text().splitlines()
            self._most = max(self._most, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self._most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--plot", type=Path, help="an image of the memory over the pairs")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(step(args.pairs[0], args.ways[0])))
        return
    print(f"{'pairs':>6} {'way':12} {'GiB':>6} {'seconds':>8} {'loss':>8}")
    memory: dict[str, dict[int, float]] = {way: {} for way in args.ways}
    for pairs in args.pairs:
        for way in args.ways:
            command = [sys.executable, __file__, "--alone", "--pairs", str(pairs), "--ways", way]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            print(f"{pairs:6} {way:12} {found['GiB']:6.2f} {found['seconds']:8.1f} {found['loss']:8.4f}", flush=True)
            memory[way][pairs] = found["GiB"]
    if args.plot:
        plot(memory, args.plot)


def plot(memory: dict[str, dict[int, float]], path: Path) -> None:
    """Memory over the batch size, a line for each way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for way, found in memory.items():
        axes.plot(list(found), list(found.values()), marker="o", label=way.replace("_", " and "))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("pairs in a batch")
    axes.set_ylabel("most memory of a step, GiB")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
