"""Programs compiled by one process and taken by the next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging, sys
import jax, jax.numpy as jnp
from jaxret.runtime.compile_cache import use_compile_cache

jax.config.update("jax_log_compiles", False)
print(use_compile_cache())
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.jit(lambda x: jnp.sin(x) * 2)(jnp.ones(3)).block_until_ready()
print(sum(event.endswith("cache_hits") for event in hits), sum(event.endswith("cache_misses") for event in hits))
"""


def run(**environment: str) -> tuple[str, int, int]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMP", "JAX_PERS", "JAXRET"))
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=inherited | environment, capture_output=True, text=True, check=True
    )
    folder, counts = done.stdout.splitlines()
    return folder, *map(int, counts.split())


def test_the_second_process_compiles_nothing(tmp_path: Path):
    folder, hits, misses = run(JAXRET_CACHE=str(tmp_path))
    assert Path(folder).is_relative_to(tmp_path) and hits == 0 and misses > 0
    assert run(JAXRET_CACHE=str(tmp_path)) == (folder, misses, 0)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"JAXRET_CACHE": ""}, "None"),
        ({"XDG_CACHE_HOME": "{tmp}"}, "{tmp}/jaxret/compiled"),
        ({"JAX_COMPILATION_CACHE_DIR": "{tmp}/own", "JAXRET_CACHE": "{tmp}"}, "{tmp}/own"),
    ],
)
def test_where_it_is(tmp_path: Path, setting: dict[str, str], expected: str):
    folder, _, _ = run(**{name: value.format(tmp=tmp_path) for name, value in setting.items()})
    assert folder.startswith(expected.format(tmp=tmp_path))
