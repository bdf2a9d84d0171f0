"""A disk without room: the index that is there stays whole, and the same command succeeds when there is room again."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys

import jax
import pytest

OWN_MOUNTS = ["unshare", "--map-root-user", "--mount"]


def test_an_index_outlives_a_full_disk(root, beir_of_animals, model, random_params, tmp_path):
    if subprocess.run([*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True).returncode:
        # Only a file system of its own fills up without harm to others, and some containers forbid to mount one.
        pytest.skip("this system lets nobody mount a small file system")
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, token_layers=(8,)))
    model.save_description(tmp_path / "model")
    params = jax.device_get(random_params(model.abstract_params()))
    (tmp_path / "model" / "params.pickle").write_bytes(pickle.dumps(params))
    disk = tmp_path / "disk"
    disk.mkdir()
    settings = json.dumps({"place": str(disk), "model": str(tmp_path / "model"), "data": str(beir_of_animals)})
    mounted = 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"'
    script = [sys.executable, str(root / "tests/faults/full_disk.py"), settings]
    done = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", mounted, str(disk), *script],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    plaid, encode = done.stdout.strip().splitlines()
    assert "No space left on device" in plaid
    assert "InputError" in encode and "cannot be written" in encode and "Free some space" in encode
