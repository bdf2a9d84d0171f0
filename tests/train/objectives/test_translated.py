import dataclasses

import jax
import numpy as np
import optax
import pytest

from jaxret.errors import InputError
from jaxret.runtime.layouts import load_pretrained
from jaxret.runtime.mesh import device_mesh
from jaxret.train.objectives.translated import translated
from jaxret.train.program import global_batch, step_program
from jaxret.train.start import begun
from tests.parity.cases import Case

B = 4


@pytest.fixture(scope="module")
def teacher():
    """A folder of sentence-transformers, its model and parameters."""
    folder = Case("st6_minilm").folder
    return str(folder), *load_pretrained(folder, device_mesh((1, 1, 1), jax.devices()[:1]))


def test_both_sides_learn_the_teachers_vector_of_the_sentence(teacher, random_params):
    folder, guide, known = teacher
    encoder = dataclasses.replace(guide.config.encoder, dropout=0.0)
    student = dataclasses.replace(guide, config=dataclasses.replace(guide.config, encoder=encoder, pooling="cls"))
    params = random_params(student.abstract_params())
    objective, mesh = translated(teacher=folder), device_mesh((1, 1, 1), jax.devices()[:1])
    step, abstract = step_program(student, objective, optax.sgd(0.1), 0, mesh)
    state = begun(student, objective, optax.sgd(0.1), 0, jax.tree.map(jax.numpy.array, params))
    state = jax.device_put(state, jax.tree.map(lambda x: x.sharding, abstract))
    state = dataclasses.replace(state, objective=objective.load(state.objective))
    random = np.random.default_rng(0)
    rows = {
        "query": random.integers(7, guide.tokenizer.size, (B, 6)).astype(np.int32),
        "passage": random.integers(7, guide.tokenizer.size, (B, 2, 9)).astype(np.int32),
    }

    def vectors(model, params, ids, side):
        return np.asarray(jax.jit(model.for_search().apply, static_argnums=2)(params, ids, side).dense)

    target = vectors(guide, known, rows["query"], "query")
    sides = {"sentence": (rows["query"], "query"), "translation": (rows["passage"][:, 0], "passage")}
    expected = {name: np.mean((vectors(student, params, *ids) - target) ** 2) for name, ids in sides.items()}
    before = jax.tree.map(np.asarray, state.objective["teacher"])
    state, metrics = step(state, global_batch(rows, mesh))
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[f"mse_{name}"], value, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], sum(expected.values()), rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, state.objective["teacher"], before)


def test_a_teacher_of_another_width_is_refused(teacher, model):
    folder, guide, _ = teacher
    narrow = dataclasses.replace(guide, config=dataclasses.replace(guide.config, truncate=4))
    with pytest.raises(InputError, match="numbers, the model's 4"):
        step_program(narrow, translated(teacher=folder), optax.sgd(0.1), 0, device_mesh((8, 1, 1)))
    with pytest.raises(InputError, match="vocabulary"):
        step_program(model, translated(teacher=folder), optax.sgd(0.1), 0, device_mesh((8, 1, 1)))
