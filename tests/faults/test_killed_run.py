"""A training that is killed twenty times, with SIGKILL, at random moments of its start, its steps and its saving."""

import json
import os
import random
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

KILLS = 20


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_with_the_same_bits(root, tokenizer, tmp_path):
    tokenizer.save(tmp_path / "vocabulary.model")
    seed = random.randrange(2**32)
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(root)}

    def ended(kills):
        settings = {"workdir": str(tmp_path / str(kills) / "run"), "vocabulary": str(tmp_path / "vocabulary.model")}
        settings |= {"cache": str(tmp_path / "cache"), "kills": kills, "seed": seed}
        command = [sys.executable, root / "tests/faults/killed_run.py", json.dumps(settings)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540)
        assert done.returncode == 0, f"seed {seed}: {done.stderr}"
        return done.stdout

    with ThreadPoolExecutor() as pool:
        whole, killed = pool.map(ended, (0, KILLS))
    assert killed.count("killed with steps") == KILLS
    assert len(set(re.findall(r"killed with steps .*", killed))) > 3, "the kills came before the first steps"
    assert whole.count("state ") == 1 and whole.strip() == killed.splitlines()[-1].strip(), f"seed {seed}"
