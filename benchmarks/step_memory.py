"""Memory and time of one training step over the batch size: plain, gradient caching, tiled scores, both.

    .venv/bin/python benchmarks/step_memory.py
    .venv/bin/python benchmarks/step_memory.py --pairs 65536 --ways cached_tiled

A dense encoder from scratch (2 layers, 128 wide, 8,000 pieces), queries of 16 and passages of 32 random ids, AdamW, one
device. Each step runs in a process of its own, twice, the second time measured; the memory is the most that the process
held of its own, files aside.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

WAYS = {"plain": (0, False), "cached": (256, False), "tiled": (0, True), "cached_tiled": (256, True)}


def step(pairs: int, way: str) -> dict[str, float]:
    """Runs in a process of its own."""
    from scratch import stepper

    from jaxret.nn.config import EncoderConfig

    chunk_rows, tiled = WAYS[way]
    sizes = EncoderConfig(vocab_size=8000, width=128, num_layers=2, num_heads=4, mlp_width=256)
    run = stepper(sizes, pairs, (16, 32), tiled=tiled, chunk_rows=chunk_rows)
    run()
    peak = _Peak()
    start = time.perf_counter()
    loss = run()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "GiB": peak.stop() / 2**20, "loss": loss}


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
