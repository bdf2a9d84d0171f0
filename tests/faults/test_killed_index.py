"""Encoding, indexing, compressing and searching, killed twenty times with SIGKILL at random moments."""

import dataclasses
import json
import os
import pickle
import random
import re
import subprocess
import sys

import jax
import pytest

KILLS = 20


@pytest.mark.slow
def test_an_index_killed_twenty_times_is_the_same_to_the_last_byte(
    root, beir_of_animals, model, random_params, tmp_path
):
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, token_layers=(8,)))
    model.save_description(tmp_path / "model")
    params = jax.device_get(random_params(model.abstract_params()))
    (tmp_path / "model" / "params.pickle").write_bytes(pickle.dumps(params))
    seed = random.randrange(2**32)
    settings = {"place": str(tmp_path), "model": str(tmp_path / "model"), "data": str(beir_of_animals)}
    settings |= {"cache": str(tmp_path / "cache"), "kills": KILLS, "seed": seed}
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    done = subprocess.run(
        [sys.executable, root / "tests/faults/killed_index.py", json.dumps(settings)],
        env=os.environ | {"PYTHONPATH": str(root), "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    counts = re.findall(r"killed with (\d+) files", done.stdout)
    assert len(counts) == KILLS and len(set(counts)) > 3, f"seed {seed}: {counts}"
    whole, killed = (
        {path.relative_to(place): path.read_bytes() if path.is_file() else None for path in place.rglob("*")}
        for place in (tmp_path / "undisturbed", tmp_path / "killed")
    )
    last = {"vectors/vectors.json", "plaid/SHA256SUMS", "bm25/SHA256SUMS", "documents.offsets.npy", "index.json"}
    assert {f"index/{name}" for name in last} | {"plaid.trec"} <= {str(name) for name in whole}
    killed = {name: data for name, data in killed.items() if not name.name.endswith(".__lock")}  # tensorstore's
    assert killed.keys() == whole.keys(), f"seed {seed}"
    assert killed == whole, f"seed {seed}"
