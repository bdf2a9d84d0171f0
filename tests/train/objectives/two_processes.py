"""Takes the steps of every case as one of two processes: python two_processes.py '{settings as JSON}'."""

import json
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax._src import cache_key

from jaxret.runtime.model import Model
from tests.train.objectives.cases import CASES, CHUNK_ROWS
from tests.train.objectives.steps import named, placed, program, stepped


def main(folder, shape, distributed):
    """Writes what the steps from the states in `begun.pickle` find, by name, to `<process>.npz`."""
    folder = Path(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder / "cache"))
    jax.config.update("jax_share_binary_between_hosts", True)
    cache_key._hash_accelerator_config = lambda *_: None  # JAX takes the processes of one CPU for different machines
    jax.distributed.initialize(**distributed)
    model, begun = Model.load_description(folder), pickle.loads((folder / "begun.pickle").read_bytes())
    cases = {name: case(model, str(folder / "speaker")) for name, case in CASES.items()}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        programs = pool.map(lambda case: program(case, tuple(shape), CHUNK_ROWS), cases.values())
        programs = dict(zip(cases, programs, strict=True))
    found = {}
    for name, case in cases.items():
        state = placed(begun[name], programs[name].abstract)
        arrays = named(programs[name], *stepped(programs[name], state, case.batches))
        found |= {f"{name}/{place}": x for place, x in arrays.items()}
    written = folder / f"{jax.process_index()}.npz"
    np.savez(written.with_suffix(".part.npz"), **found)
    written.with_suffix(".part.npz").rename(written)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
