"""Compiles training steps for TPU topologies and writes what they cost into docs/tpu.md; `make tpu-table` runs it.

    PYTHONPATH=.venv/libtpu python -m benchmarks.tpu.table

A step that was compiled before is not compiled again: what was found lies in runs/tpu/, and counts as long as sources
and compiler are the same. `--kind`, `--encoder` and `--topology` choose some of the steps; the page then has these and
those that still count.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.tpu.arithmetic import model_flops, program_flops, texts
from benchmarks.tpu.kernels import cycles as kernel_cycles
from benchmarks.tpu.steps import STEPS, Step
from jaxret.files import sha256, write_json
from jaxret.runtime.compiled.costs import costs, held_bytes
from jaxret.runtime.compiled.hlo import Program
from jaxret.train.throughput import peak_flops

ROOT = Path(__file__).parents[2]
RESULTS = Path("runs/tpu")
MADE_OF = (
    "jaxret/nn",
    "jaxret/ops",
    "jaxret/runtime",
    "jaxret/train",
    "benchmarks/tpu/steps.py",
    "benchmarks/tpu/kernels.py",
)
COMPILERS = ("jax", "libtpu")
CLOCK = {"v5e": 1.5e9, "v5p": 1.75e9}
HBM_RATE = {"v5e": 819e9, "v5p": 2765e9}
DEVICE = {"v5e": "TPU v5 lite", "v5p": "TPU v5"}
GIB = 2**30
MARK = "<!-- benchmarks/tpu/table.py -->"
DEAREST = 12


def fingerprint(root: Path = ROOT) -> str:
    """A hash of all that the programs depend on: our sources, and the versions of the compiler."""
    versions = [f"{name} {found.version}" for name in COMPILERS for found in distributions(name=name)]
    digest = hashlib.sha256("\n".join(versions).encode())
    for part in MADE_OF:
        for file in sorted((root / part).rglob("*.py")) or [root / part]:
            digest.update(f"\n{file.relative_to(root)} {sha256(file)}".encode())
    return digest.hexdigest()


def known(place: Path, made_of: str) -> dict[str, Any]:
    """What was found before with the same fingerprint; {} otherwise."""
    record = json.loads(place.read_text()) if place.exists() else {}
    return record["found"] if record.get("made_of") == made_of else {}


def keep(place: Path, made_of: str, found: dict[str, Any]) -> None:
    """Writes what was found, for `known`."""
    write_json(place, {"made_of": made_of, "found": found})


def schedules(steps: list[Step], made_of: str) -> dict[str, int]:
    """Cycles of the kernels of steps; asked for before anything is compiled here, as one process at a time may."""
    place = RESULTS / "kernels.json"
    shapes = known(place, made_of)
    for step in steps:
        encoder = step.model().config.encoder
        for rows, length in texts(step):
            shape = f"{rows} {length} {encoder.width} {encoder.heads_width}"
            if shape not in shapes:
                shapes[shape] = kernel_cycles(*map(int, shape.split()))
                keep(place, made_of, shapes)
    return {name: cycles for found in shapes.values() for name, cycles in found.items()}


def measured(step: Step, kernels: dict[str, int]) -> dict[str, Any]:
    """What a step costs a chip, found by compiling it."""
    begun = time.perf_counter()
    compiled = step.compiled()
    seconds = time.perf_counter() - begun
    found = costs(Program(compiled.as_text()))
    return {
        "hbm": held_bytes(compiled),
        "flops": found.flops,
        "traffic": found.traffic,
        "collectives": found.collectives,
        "cycles": found.cycles,
        "kernels": {name: [times, kernels.get(name)] for name, times in found.kernels.items()},
        "compile_seconds": seconds,
    }


def total_cycles(step: Step, found: dict[str, Any]) -> float:
    """The compiler's estimates, and the kernels' schedules."""
    unknown = [name for name, (_, cycles) in found["kernels"].items() if cycles is None]
    if unknown:
        sys.exit(f"{step.name}: no schedule of the kernels {unknown}")
    return sum(found["cycles"].values()) + sum(times * cycles for times, cycles in found["kernels"].values())


def row(step: Step, found: dict[str, Any]) -> str:
    """One line of the table."""
    chip = step.topology[:3]
    cycles = total_cycles(step, found)
    peak = peak_flops(DEVICE[chip])
    model = model_flops(step)
    share = model / (cycles / CLOCK[chip]) / peak
    cells = [
        f"{step.kind}{f', dropout {step.dropout}' if step.dropout else ''}{', unrolled' * step.unrolled}",
        step.encoder,
        f"{step.topology} as {'x'.join(map(str, step.shape))}",
        str(step.rows),
        f"{found['hbm'] / GIB:.1f}",
        f"{found['flops'] / 1e12:.2f}",
        f"{sum(program_flops(step).values()) / 1e12:.2f}",
        f"{model / 1e12:.2f}",
        f"{found['traffic'] / GIB:.0f}",
        ", ".join(f"{size / 2**20:.0f} {kind}" for kind, size in sorted(found["collectives"].items()) if size > 2**20),
        f"{cycles / 1e6:.0f}",
        f"{share:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def dearest(step: Step, found: dict[str, Any]) -> list[str]:
    """The source lines with the most cycles."""
    total = total_cycles(step, found)
    lines = {line or "(no line)": cycles for line, cycles in found["cycles"].items()}
    lines |= {f"kernel {name.split(' -> ')[0]}": times * cycles for name, (times, cycles) in found["kernels"].items()}
    order = sorted(lines.items(), key=lambda item: -item[1])[:DEAREST]
    return [f"| `{line}` | {cycles / 1e6:.1f} | {cycles / total:.1%} |" for line, cycles in order]


def document(found: dict[str, dict[str, Any]]) -> str:
    """The tables, of the steps that something was found of."""
    steps = [step for step in STEPS if found[step.name]]
    lines = [
        "| step | encoder | chips | rows a chip | HBM, GiB | products, TFLOP | by hand | model, TFLOP "
        "| HBM traffic, GiB | sent, MiB | million cycles | share of peak |",
        "|" + "---|" * 12,
        *(row(step, found[step.name]) for step in steps),
    ]
    for step in (next(step for step in steps if step.kind == kind) for kind in dict.fromkeys(s.kind for s in steps)):
        lines += ["", f"The dearest lines of {step.kind}, {step.encoder}, {step.topology}:", ""]
        lines += ["| line | million cycles | share |", "|---|---|---|", *dearest(step, found[step.name])]
    return "\n".join(lines)


def main() -> None:
    """Compiles what is missing, writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("kind", "encoder", "topology"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--output", type=Path, default=Path("docs/tpu.md"))
    wanted = vars(parser.parse_args())
    output = wanted.pop("output")
    RESULTS.mkdir(parents=True, exist_ok=True)
    made_of = fingerprint()
    found = {step.name: known(RESULTS / f"{step.name}.json", made_of) for step in STEPS}
    missing = [
        step
        for step in STEPS
        if not found[step.name] and all(value in (None, getattr(step, name)) for name, value in wanted.items())
    ]
    kernels = schedules(missing, made_of)
    for step in missing:
        print(step.name, file=sys.stderr, flush=True)
        found[step.name] = measured(step, kernels)
        keep(RESULTS / f"{step.name}.json", made_of, found[step.name])
    text = output.read_text()
    before, _, after = text.split(MARK)
    output.write_text(f"{before}{MARK}\n{document(found)}\n{MARK}{after}")


if __name__ == "__main__":
    main()
