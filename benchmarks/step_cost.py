"""Speed of a training step over batch, length and depth, beside the machine's fastest product, into an image.

    .venv/bin/python benchmarks/step_cost.py --plot docs/step-cost.png

A dense encoder from scratch, 384 wide, 12 heads, an MLP of 1,536; 32 pairs of 128 tokens each and 6 layers where
nothing else is said. The operations are those of the products that the gradient needs; the line is the speed of one
product of two matrices of 2,048 x 2,048, in the same process.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from scratch import batch, stepper

from jaxret.nn.config import EncoderConfig
from jaxret.runtime.heap import compute_in_turn, keep_heap
from jaxret.train.throughput import training_flops

USUAL = {"pairs": 32, "length": 128, "layers": 6}
POINTS = {"pairs": (2, 8, 32, 64), "length": (32, 128, 512), "layers": (1, 6, 12)}
ROUNDS = 3


def seconds(run: Callable[[], object]) -> float:
    """Of the fastest of a few calls, after the first one."""
    run()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def speed(dtype: str, pairs: int, length: int, layers: int) -> float:
    """GFLOP/s of a step."""
    sizes = EncoderConfig(vocab_size=8000, width=384, num_layers=layers, num_heads=12, mlp_width=1536, gated=False)
    lengths = (length, length)
    taken = seconds(stepper(sizes, pairs, lengths, precision=dtype))
    return training_flops(sizes, batch(pairs, lengths)) / taken / 1e9


def peak(dtype: str, size: int = 2048) -> float:
    """GFLOP/s of one product, accumulated in float32."""
    x = jnp.ones((size, size), dtype)
    product = jax.jit(lambda x: jnp.matmul(x, x, preferred_element_type=jnp.float32))
    return 2 * size**3 / seconds(lambda: product(x).block_until_ready()) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="an image")
    args = parser.parse_args()
    keep_heap()
    compute_in_turn()
    peaks = {dtype: peak(dtype) for dtype in ("float32", "bfloat16")}
    found: dict[str, dict[str, list[float]]] = {}
    print("dtype     setting      GFLOP/s  of the product's")
    for dtype, most in peaks.items():
        print(f"{dtype:9} product     {most:8.0f}")
        usual = speed(dtype, **USUAL)
        for setting, values in POINTS.items():
            speeds = [
                usual if value == USUAL[setting] else speed(dtype, **USUAL | {setting: value}) for value in values
            ]
            found.setdefault(setting, {})[dtype] = speeds
            for value, each in zip(values, speeds, strict=True):
                print(f"{dtype:9} {setting:6} {value:4} {each:8.0f} {each / most:6.0%}", flush=True)
    if args.plot:
        plot(found, peaks, args.plot)


def plot(found: dict[str, dict[str, list[float]]], peaks: dict[str, float], path: Path) -> None:
    """A panel for each setting; the speed of a product is a dashed line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, (setting, lines) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
        for dtype, speeds in lines.items():
            (line,) = axes.plot(POINTS[setting], speeds, marker="o", label=dtype)
            axes.axhline(peaks[dtype], color=line.get_color(), linestyle="--", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel({"pairs": "pairs in a batch", "length": "tokens in a text", "layers": "layers"}[setting])
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("GFLOP/s (dashed: one product)")
    figure.axes[0].legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
