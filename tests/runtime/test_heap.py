"""A process that keeps its heap does not ask for the same pages again."""

import subprocess
import sys

CODE = """
import resource, sys
from jaxret.runtime.heap import keep_heap
if sys.argv[1] == "kept":
    assert keep_heap()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 2**27
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(min(faults() for _ in range(3)))
"""


def faults(way: str) -> int:
    command = [sys.executable, "-c", CODE, way]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, env={"JAX_PLATFORMS": "cpu"}).stdout)


def test_the_pages_stay():
    assert faults("kept") < 100
    assert faults("given_back") > 1000, "otherwise there is nothing to keep"
