"""A corpus encoded and searched by two processes, beside one."""

import json
import os
import pickle
import socket
import subprocess
import sys

import jax
import numpy as np


def test_two_processes_make_and_find_what_one_does(root, beir_of_animals, model, random_params, tmp_path):
    params = jax.device_get(random_params(model.abstract_params()))
    model.save_description(tmp_path)
    (tmp_path / "params.pickle").write_bytes(pickle.dumps(params))
    settings = {"folder": str(tmp_path), "data": str(beir_of_animals), "questions": ["where is the cat?", "rain"]}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"

    def begun(**processes):
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
        more = {"k": 20, "distributed": bool(processes)}
        return subprocess.Popen(
            [sys.executable, root / "tests/search/two_processes.py", json.dumps(settings | more)],
            env=os.environ | {"PYTHONPATH": str(root), "XLA_FLAGS": flags} | processes,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    both = [begun(**job, JAX_PROCESS_ID=str(number)) for number in (0, 1)]
    for process in (*both, begun()):
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    one = np.load(tmp_path / "0-1.npz")
    assert len(one.files) == 6 + 6
    for number in (0, 1):
        two = np.load(tmp_path / f"{number}-2.npz")
        for name in one.files:
            assert two[name].tobytes() == one[name].tobytes(), name
    stores = [
        {path.relative_to(store): path.read_bytes() for path in store.rglob("*") if path.is_file()}
        for store in (tmp_path / "store-1", tmp_path / "store-2")
    ]
    assert stores[0] == stores[1] and len(stores[0]) > 50
