import json

import jax

from jaxret.runtime.manifest import machine, manifest
from jaxret.runtime.mesh import device_mesh


def test_a_manifest_is_json_with_versions_and_the_facts_given():
    record = json.loads(json.dumps(manifest(seed=3, **machine(device_mesh((2, 2, 2))))))
    assert record["seed"] == 3
    assert record["mesh"] == {"data": 2, "fsdp": 2, "tensor": 2} and record["num_devices"] == 8
    assert record["versions"]["jax"] == jax.__version__
    assert {"command", "time", "jaxret", "python", "commit"} <= record.keys()


def test_no_fact_replaces_what_a_manifest_says_itself():
    record = manifest(versions={"PyStemmer": "1"}, command="another", seed=3)
    assert record["versions"]["jax"] == jax.__version__ and record["command"] != "another" and record["seed"] == 3


def test_a_missing_package_or_git_is_left_out(monkeypatch):
    monkeypatch.setattr("jaxret.runtime.manifest.PACKAGES", ("jax", "no-such-package"))
    monkeypatch.setenv("PATH", "")
    record = manifest()
    assert list(record["versions"]) == ["jax"]
    assert record["commit"] is None
