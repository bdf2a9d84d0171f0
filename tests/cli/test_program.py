"""The installed command, in processes of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxret.runtime.heap import TUNABLES

# Read by each Python that starts, so its lines tell how often the program began.
NOTED = f"""
import os
with open(os.environ["STARTS"], "a") as file:
    print(os.environ.get("{TUNABLES}", "without"), file=file)
"""


@pytest.mark.parametrize("command", [[Path(sys.executable).with_name("jaxret")], [sys.executable, "-m", "jaxret"]])
def test_training_begins_again_once_with_its_arguments(tmp_path, command):
    (tmp_path / "sitecustomize.py").write_text(NOTED)
    starts = tmp_path / "starts"
    environment = {name: value for name, value in os.environ.items() if name != TUNABLES}
    environment |= {"PYTHONPATH": str(tmp_path), "STARTS": str(starts), "JAX_PLATFORMS": "cpu"}

    def run(*arguments):
        starts.unlink(missing_ok=True)
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment)
        return done.returncode, done.stderr, starts.read_text().splitlines()

    code, error, begun = run("train", "--gin_file", "a name, missing.gin")
    assert code == 2 and error.startswith("jaxret: a name, missing.gin: no such gin file")
    assert begun[0] == "without" and len(begun) == 2 and "trim_threshold" in begun[1]
    code, _, begun = run("index", "--help")
    assert code == 0 and begun == ["without"]
