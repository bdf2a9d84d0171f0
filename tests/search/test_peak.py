"""What a process holds while it searches stores that are larger than its memory budget, as the system counts it."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_search_holds_no_more_than_its_budget(root, tmp_path):
    settings = {"folder": str(tmp_path), "documents": 1600, "more": 240 * 10**6}
    script = [sys.executable, str(Path(__file__).with_name("peak.py")), json.dumps(settings)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(lines) == 2, "dense and multi_vector"
    for before, allowed, peak, store in lines:
        assert before < peak <= allowed < before + store, done.stdout
