"""Indexes a corpus and writes a run, and kills both many times: python killed_index.py '{settings as JSON}'.

It prints what was there at each kill. Each attempt is a fork, so that it starts quickly.
"""

import json
import os
import pickle
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import jax

from jaxret.data.beir import BeirFolder
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import Model
from jaxret.search import corpus
from jaxret.search.encode import TextEncoder
from jaxret.search.engine import Engine
from jaxret.search.index import build_index, load_index
from jaxret.search.plaid.build import PlaidSettings
from jaxret.search.run_files import write_run
from tests.faults.killed_run import ended, forked

corpus.SHARD_DOCUMENTS = 5


def indexed(place, model, data, cache):
    """The index, and the run of a search in it."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    described, params = Model.load_description(model), pickle.loads((Path(model) / "params.pickle").read_bytes())
    encoder = TextEncoder(described, params, device_mesh((1, 1, 1), jax.devices()[:1]))
    folder = BeirFolder(data)
    compression = PlaidSettings(nbits=2, num_centroids=8)
    build_index(place / "index", encoder, Path(model), None, folder.corpus, "en", dtype="int8", compression=compression)
    index = load_index(place / "index")
    for mode in ("multi_vector", "plaid"):
        run = Engine(index, encoder, mode, 5).run(folder.queries.ids, folder.queries.texts)
        write_run(run, place / f"{mode}.trec", "jaxret")


def main(place, model, data, cache, kills, seed):
    draw, place = random.Random(seed), Path(place)
    for folder in ("compiled", "undisturbed"):  # the second one finds its programs, as those that are killed do
        begun = time.perf_counter()
        assert ended(forked(indexed, place / folder, model, data, cache)) == 0
        seconds = time.perf_counter() - begun
    killed = place / "killed"
    done = 0
    while done < kills:
        process = forked(indexed, killed, model, data, cache)
        time.sleep(draw.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)
        if ended(process) == 0:
            shutil.rmtree(killed)
            continue
        done += 1
        print(f"killed with {len(list(killed.rglob('*')))} files", flush=True)
    assert ended(forked(indexed, killed, model, data, cache)) == 0


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
