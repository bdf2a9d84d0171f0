"""A process that keeps its heap does not ask for the same pages again; threads that share one have no other."""

import subprocess
import sys

import pytest

from jaxret.runtime.heap import TUNABLES

CODE = """
import ctypes, os, resource, sys, threading
from jaxret.runtime.heap import keep_heap
if sys.argv[1] == "kept":
    keep_heap()
libc = ctypes.CDLL(None)
place, size = ctypes.c_void_p(), 2**28
def use():  # as XLA does: aligned, in threads of its own
    assert not libc.posix_memalign(ctypes.byref(place), ctypes.c_size_t(64), ctypes.c_size_t(size))
    ctypes.memset(place, 1, size)
    libc.free(place)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
least = min(faults() for _ in range(10))
(peak,) = (int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(least, peak // 2**10, sys.argv[2:])
"""


def run(way, **environment):
    command = [sys.executable, "-c", CODE, way, "an argument"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    faults, mib, rest = done.stdout.split(maxsplit=2)
    assert rest.strip() == "['an argument']"
    return int(faults), int(mib)


def test_the_pages_stay():
    faults, mib = run("kept", JAX_PLATFORMS="cpu")
    assert faults < 100 and mib < 512
    assert run("given_back", JAX_PLATFORMS="cpu")[0] > 10_000, "otherwise there is nothing to keep"


@pytest.mark.parametrize("environment", [{"JAX_PLATFORMS": "tpu"}, {TUNABLES: "glibc.malloc.check=0"}])
def test_other_platforms_and_the_settings_of_users_stay_as_they_are(environment):
    assert run("kept", **environment)[0] > 10_000


THREAD = """
import ctypes, sys, threading
from jaxret.runtime.heap import one_arena
if sys.argv[1] == "one":
    one_arena()
libc, places = ctypes.CDLL(None), []
libc.malloc.restype = ctypes.c_void_p
thread = threading.Thread(target=lambda: places.append(libc.malloc(ctypes.c_size_t(1000))))
thread.start()
thread.join()
(heap,) = (line.split()[0] for line in open("/proc/self/maps") if line.endswith("[heap]\\n"))
start, stop = (int(end, 16) for end in heap.split("-"))
print(start <= places[0] < stop)
"""


@pytest.mark.parametrize(
    ("way", "environment", "shared"),
    [("one", {}, "True"), ("many", {}, "False"), ("one", {TUNABLES: "glibc.malloc.check=0"}, "False")],
)
def test_threads_share_the_heap_unless_the_user_has_settings(way, environment, shared):
    done = subprocess.run(
        [sys.executable, "-c", THREAD, way], check=True, capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == shared
