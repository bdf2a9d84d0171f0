"""Runs the arms of an experiment with several seeds and prints the table of its README.

    .venv/bin/python experiments/compare.py experiments/granite/merging.toml

An experiment is a TOML file of shell commands, in which {seed}, {out} (a folder for the arm and the seed) and {shared}
(a folder for the experiment) stand for what they say:

    seeds = [0, 1, 2]
    metric = "mrr_at_10"
    prepare = ["jaxret mine ... --output {shared}/negatives.tsv"]     # once
    [arms]                                                            # the first one is what the others are compared to
    random = ["jaxret train ...", "jaxret evaluate ... --output {out}/eval"]
    mined = [...]
    [scores]                                                          # what an arm's last command leaves behind,
    files = ["{out}/eval/metrics/multi_vector.tsv"]                   # one query as good as another

A command that has run is not run again: what it printed lies in runs/experiments/, with the command.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxret.eval.intervals import mean_intervals, paired_difference

ROOT = Path(__file__).parents[1]


def done(command: str, shared: Path) -> None:
    """Runs a shell command in the project's folder, unless it ran before."""
    log = shared / "log" / f"{hashlib.sha256(command.encode()).hexdigest()[:16]}.txt"
    if log.exists():
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"$ {command}", file=sys.stderr, flush=True)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    found = subprocess.run(
        command, shell=True, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if found.returncode:
        sys.exit(f"{found.stdout[-2000:]}\nfailed: {command}")
    partial = log.with_suffix(".part")
    partial.write_text(f"$ {command}\n{found.stdout}")
    partial.rename(log)


def measured(files: Sequence[Path], metric: str) -> dict[str, float]:
    """{number of the file, query: value} of metrics tables."""
    found = {}
    for number, file in enumerate(files):
        with file.open(encoding="utf-8") as lines:
            for row in csv.DictReader(lines, delimiter="\t"):
                found[f"{number} {row['query-id']}"] = float(row[metric])
    return found


def table(scores: Mapping[str, Sequence[dict[str, float]]], metric: str) -> list[str]:
    """Markdown rows: each arm's mean over seeds and queries, its seeds, and its difference from the first arm."""
    queries = sorted(next(iter(scores.values()))[0])
    values = {arm: np.array([[one[q] for q in queries] for one in seeds]) for arm, seeds in scores.items()}
    means = {arm: x.mean(axis=0) for arm, x in values.items()}
    intervals, base = mean_intervals(means), next(iter(values))
    rows = [
        f"| arm | {metric} | 95% interval | seeds | less {base}, 95% interval | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for arm, x in values.items():
        low, high = intervals[arm]
        seeds = " ".join(f"{mean:.3f}" for mean in x.mean(axis=1))
        row = f"| {arm} | {means[arm].mean():.3f} | {low:.3f} to {high:.3f} | {seeds} |"
        if arm == base:
            rows.append(f"{row} | |")
            continue
        found = paired_difference(means[arm], means[base])
        by_seed = " ".join(f"{mean:+.3f}" for mean in (x - values[base]).mean(axis=1))
        rows.append(f"{row} {found.mean:+.3f}, {found.low:+.3f} to {found.high:+.3f} | {by_seed} |")
    return rows


def main() -> None:
    """Prepares, runs every arm with every seed, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="a TOML file")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the file's")
    parser.add_argument("--dry_run", action="store_true", help="print the commands")
    arguments = parser.parse_args()
    plan: dict[str, Any] = tomllib.loads(arguments.experiment.read_text())
    shared = Path("runs/experiments") / arguments.experiment.parent.name / arguments.experiment.stem
    scores: dict[str, list[dict[str, float]]] = {arm: [] for arm in plan["arms"]}
    commands = [command.format(shared=shared) for command in plan.get("prepare", [])]
    for command in commands:
        print(command) if arguments.dry_run else done(command, ROOT / shared)
    for seed in arguments.seeds or plan["seeds"]:
        for arm, steps in plan["arms"].items():
            places = {"seed": seed, "out": shared / f"{arm}-{seed}", "shared": shared}
            for command in steps:
                text = command.format(**places)
                print(text) if arguments.dry_run else done(text, ROOT / shared)
            if not arguments.dry_run:
                files = [ROOT / file.format(**places) for file in plan["scores"]["files"]]
                scores[arm].append(measured(files, plan["metric"]))
    if not arguments.dry_run:
        print("\n".join(table(scores, plan["metric"])))


if __name__ == "__main__":
    main()
