"""`jaxret merge` against the same arithmetic in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.cli.merge import merge
from jaxret.errors import InputError
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.layouts import load_pretrained, save_pretrained
from jaxret.runtime.mesh import device_mesh
from tests.parity.cases import Case


def flat(params) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(params)])


def loaded(folder) -> np.ndarray:
    return flat(load_pretrained(folder, device_mesh())[1])


@pytest.fixture(scope="module")
def models(tmp_path_factory, random_params):
    """Three models of one shape, in two layouts, and a run with four checkpoints."""
    folder = tmp_path_factory.mktemp("models")
    model, params = load_pretrained(Case("st6_minilm").folder, device_mesh())
    trees = [params, *(random_params(params, seed) for seed in range(1, 6))]
    for name, tree, layout in (("b", trees[1], "jaxret"), ("c", trees[2], "sentence_transformers")):
        save_pretrained(folder / name, model, tree, layout)
    model.save_description(folder / "run")
    checkpoints = Checkpoints(folder / "run" / "checkpoints")
    for step, tree in enumerate(trees[2:]):
        checkpoints.save(10 * step, tree, {"step": jnp.zeros((), jnp.int32)}, {"batches": 0})
    checkpoints.close()
    paths = [str(Case("st6_minilm").folder), str(folder / "b"), str(folder / "c")]
    return paths, str(folder / "run"), [flat(tree) for tree in trees]


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({}, [1 / 3, 1 / 3, 1 / 3]),
        ({"method": "weighted", "weights": "0.7,-0.2,0.4"}, [0.7, -0.2, 0.4]),
        ({"method": "ema", "decay": 0.75}, [0.75**2, 0.25 * 0.75, 0.25]),
    ],
)
def test_weighted_sums(models, settings, weights, tmp_path):
    paths, _, trees = models
    merge(paths, tmp_path / "merged", **settings)
    expected = sum(weight * tree for weight, tree in zip(weights, trees[:3], strict=True))
    np.testing.assert_allclose(loaded(tmp_path / "merged"), expected, atol=1e-6)


def test_task_vectors(models, tmp_path, capsys):
    paths, _, trees = models
    merge(paths[1:], tmp_path / "merged", method="task_vectors", base=paths[0], weights="0.5,0.25", layout="jaxret")
    expected = trees[0] + 0.5 * (trees[1] - trees[0]) + 0.25 * (trees[2] - trees[0])
    np.testing.assert_allclose(loaded(tmp_path / "merged"), expected, atol=1e-6)
    assert "0.25 x" in capsys.readouterr().out


@pytest.mark.parametrize(("method", "weights"), [("average", [0.5, 0.5]), ("ema", [0.9, 0.1])])
def test_the_last_checkpoints_of_a_run(models, method, weights, tmp_path):
    _, run, trees = models
    merge([run], tmp_path / "merged", last=2, method=method)
    np.testing.assert_allclose(loaded(tmp_path / "merged"), weights[0] * trees[4] + weights[1] * trees[5], atol=1e-6)
    merge([f"{run}@10", f"{run}@20"], tmp_path / "steps")
    np.testing.assert_allclose(loaded(tmp_path / "steps"), (trees[3] + trees[4]) / 2, atol=1e-6)


@pytest.mark.parametrize("at", [0.0, 1.0, 0.3])
def test_slerp(models, at, tmp_path):
    paths, _, _ = models
    merge(paths[:2], tmp_path / "merged", method="slerp", at=at)
    trees = [load_pretrained(folder, device_mesh())[1] for folder in (*paths[:2], tmp_path / "merged")]
    for a, b, found in zip(*map(jax.tree.leaves, trees), strict=True):
        a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
        angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        expected = (np.sin((1 - at) * angle) * a + np.sin(at * angle) * b) / np.sin(angle)
        np.testing.assert_allclose(np.ravel(found), expected, atol=1e-5)


def test_other_shapes_are_refused_with_both_sides(models, tmp_path):
    paths, _, _ = models
    message = r"only in .*st6_minilm: dense/.*only in .*bge_m3: .*multi_vector.*another tokeniser"
    with pytest.raises(InputError, match=message):
        merge([paths[0], str(Case("bge_m3").folder)], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "mean"}, "unknown 'mean'"),
        ({"method": "weighted"}, "0 for 3 models"),
        ({"weights": "1,2,3"}, "average takes none"),
        ({"method": "weighted", "weights": "a,b,c"}, "not a list of numbers"),
        ({"method": "slerp"}, "slerp of 3 models"),
        ({"method": "task_vectors"}, "--base: goes with task_vectors"),
        ({"base": "x"}, "--base: goes with task_vectors"),
        ({"method": "ema", "decay": 1.5}, "1.5 is not between 0 and 1"),
        ({"last": 2}, "3 models"),
        ({"layout": "onnx"}, "unknown 'onnx'"),
    ],
)
def test_wrong_settings(models, settings, message, tmp_path):
    with pytest.raises(InputError, match=message):
        merge(models[0], tmp_path / "merged", **settings)


def test_too_few_checkpoints(models, tmp_path):
    with pytest.raises(InputError, match="cannot take 4 of 3 trained checkpoints"):
        merge([models[1]], tmp_path / "merged", last=4)


def test_a_dry_run_writes_nothing(models, tmp_path, capsys):
    merge(models[0], tmp_path / "merged", dry_run=True)
    assert "would merge 0.3333 x" in capsys.readouterr().out and not (tmp_path / "merged").exists()
