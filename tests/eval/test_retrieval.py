"""The evaluation that a training run calls."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxret.cli.evaluate import evaluate
from jaxret.errors import InputError
from jaxret.eval import retrieval
from jaxret.eval.retrieval import RetrievalEvaluation
from jaxret.runtime.layouts.workdir import save_workdir
from jaxret.runtime.mesh import device_mesh
from jaxret.search.encode import TextEncoder

MEASURES = ("ndcg@10", "RR@10", "R@5")
KEYS = ("ndcg_at_10", "mrr_at_10", "recall_at_5")


@pytest.fixture(scope="module")
def params(model, random_params):
    return random_params(model.abstract_params())


@pytest.fixture(scope="module")
def evaluation(beir_of_animals):
    return RetrievalEvaluation(str(beir_of_animals), "train", measures=MEASURES, k=20)


@pytest.fixture(scope="module")
def found(evaluation, model, params):
    names = evaluation.check(model)
    result = evaluation(model, jax.device_put(params, jax.devices()[0]))
    assert list(result) == names
    return result


def test_equals_the_command(found, model, params, beir_of_animals, tmp_path):
    save_workdir(tmp_path / "model", model, params)
    evaluate(
        beir_of_animals,
        tmp_path / "results",
        split="train",
        model=tmp_path / "model",
        measures=",".join(MEASURES),
        k=20,
        fusion_weight="0.5",
        mesh_shape="-1,1,1",
    )
    entries = json.loads((tmp_path / "results" / "metrics.json").read_text())
    expected = {f"{entry['system']}_{key}": entry["scores"][key] for entry in entries for key in KEYS}
    assert found == expected and len(expected) == 9
    assert len(set(expected.values())) > 3 and 0 < expected["dense_ndcg_at_10"] < 1


def test_sharded_parameters_stay_where_they_are_and_give_the_same(found, evaluation, model, params, monkeypatch):
    """By two processes: tests/search/test_processes.py."""
    abstract, used = model.abstract_params(device_mesh((2, 2, 2))), []
    placed = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), params, abstract)

    def noted(*arguments, **settings):
        used.append(TextEncoder(*arguments, **settings))
        return used[-1]

    monkeypatch.setattr(retrieval, "TextEncoder", noted)
    again = dataclasses.replace(evaluation, heads=("dense",))(model, placed)
    assert again == {name: value for name, value in found.items() if name.startswith("dense")}
    places = jax.tree.map(lambda x: x.sharding, used[0].params)
    assert places == jax.tree.map(lambda x: x.sharding, abstract)


def test_some_queries_are_always_the_same(evaluation, model, params, tmp_path):
    some = dataclasses.replace(evaluation, heads=("dense",), queries=8)
    found = some(model, params)
    assert dataclasses.replace(some)(model, params) == found != dataclasses.replace(some, seed=1)(model, params)
    folder = Path(shutil.copytree(evaluation.folder, tmp_path / "some"))
    header, *rows = (folder / "qrels" / "train.tsv").read_text().splitlines()
    chosen = set(np.random.default_rng(0).choice(len(rows), 8, replace=False).tolist())
    kept = [row for number, row in enumerate(rows) if number in chosen]
    (folder / "qrels" / "train.tsv").write_text("\n".join([header, *kept, ""]))
    assert dataclasses.replace(evaluation, folder=str(folder), heads=("dense",))(model, params) == found


def test_a_second_evaluation_compiles_no_encoder(found, evaluation, model, params, caplog):
    caplog.set_level("INFO", "jaxret.search.batches")
    other = evaluation(model, jax.device_put(jax.tree.map(lambda x: 0.5 * x, params), jax.devices()[0]))
    assert not caplog.records and other != found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "nowhere"}, "nowhere"),
        ({"split": "dev"}, r"no split 'dev'. Splits here: train"),
        ({"heads": ("dense", "sparse")}, r"RetrievalEvaluation.heads: the model has no 'sparse'. Choose from dense"),
        ({"measures": ("accuracy",)}, "'accuracy' is unknown"),
        ({"measures": ()}, "RetrievalEvaluation.measures: none"),
        ({"queries": 0}, "RetrievalEvaluation.queries: 0"),
        ({"k": 0}, "RetrievalEvaluation.k: 0"),
    ],
)
def test_wrong_settings_are_refused_before_training(evaluation, model, changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(evaluation, **changes).check(model)
