"""Systems to measure, each in a process and an environment of its own, told when to run."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


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

    def __call__(self) -> list[str]:
        """One more run: what it printed, split at spaces."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._line().split()

    def _line(self) -> str:
        line = self._process.stdout.readline().strip()
        return line or sys.exit(f"{self._process.args} ended")

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
