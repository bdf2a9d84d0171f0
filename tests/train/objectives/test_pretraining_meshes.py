import jax
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.runtime.layouts import save_pretrained
from jaxret.runtime.mesh import BATCH, device_mesh
from jaxret.train.objectives.context_prediction import predicting_context
from jaxret.train.objectives.masked_lm import masked_language_modeling
from jaxret.train.objectives.reconstruction import reconstructing
from jaxret.train.objectives.retromae import retromae_distillation
from jaxret.train.program import global_batch, step_program
from jaxret.train.step import fresh_state
from tests.train.objectives import pretraining as tiny

SEED, ROWS = 3, 8
KEPT = optax.trace(0.0)  # its state is the last gradient


def rebuilt(model, speaker):
    return retromae_distillation(teacher=speaker, most=3), tiny.masked_batch(model, ROWS)


def neighbours(model, speaker):
    objective = predicting_context(temperature=0.3, languages=2, size=16, momentum=0.9)
    numbers = np.arange(ROWS, dtype=np.int32)
    sides = {"center": tiny.texts(model, ROWS, 7, 1), "context": tiny.texts(model, ROWS, 7, 2)}
    return objective, sides | {"language": numbers % 2, "document": numbers // 2}


def translated(model, speaker):
    batch = {"source": tiny.texts(model, ROWS, 5), "target": tiny.texts(model, ROWS, 6, 3)}
    return reconstructing(decoder=speaker, added=1, mask_id=4), batch


def packed(model, speaker):
    batch = tiny.masked_batch(model, ROWS)
    segments = np.where(batch["tokens"] < 0, -1, np.arange(9) // 4).astype(np.int32)
    return masked_language_modeling(), batch | {"segments": segments}


@pytest.fixture(scope="module")
def speaker(model, random_params, tmp_path_factory):
    """The folder of a language model, a teacher and a decoder."""
    found = tiny.bert(model, "lexical", width=8)
    folder = tmp_path_factory.mktemp("speaker") / "model"
    return str(save_pretrained(folder, found, random_params(found.abstract_params(), 7)))


def assert_close(found, expected, tolerance):
    """Equal relative to the largest number in the tree."""
    largest = max((np.abs(x).max() for x in jax.tree.leaves(expected) if x.size), default=0)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * largest), found, expected)


# Batch normalisation takes small differences of rows: their order alone, on one device, moves a gradient by 5e-5.
@pytest.mark.parametrize(
    ("example", "tolerance"), [(rebuilt, 1e-5), (neighbours, 1e-4), (translated, 1e-5), (packed, 1e-5)]
)
def test_every_mesh_gives_the_same_loss_gradients_and_state(model, random_params, speaker, example, tolerance):
    bert = tiny.bert(model)
    objective, batch = example(bert, speaker)
    params, state = tiny.filled(bert, objective, random_params)
    state = jax.tree.map(lambda x: x + 0.1 if x.dtype == np.float32 else x, state)
    loss, gradients, after, metrics = tiny.valued(bert, objective, params, state, batch, SEED)
    for shape in ((8, 1, 1), (2, 2, 2)):
        mesh = device_mesh(shape)
        step, abstract = step_program(bert, objective, KEPT, SEED, mesh)
        arrays = global_batch(batch, mesh)
        program = step.lower(abstract, arrays).compile()
        begun = fresh_state(jax.tree.map(np.asarray, params), KEPT, jax.tree.map(np.asarray, state))
        done, found = program(jax.device_put(begun, jax.tree.map(lambda x: x.sharding, abstract)), arrays)
        for name, value in ({"loss": loss} | metrics).items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
        assert_close(done.optimizer.trace, gradients, tolerance)
        assert_close(done.objective, after, tolerance)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_memories_are_split_as_batches_are(model, shape):
    mesh = device_mesh(shape)
    _, abstract = step_program(tiny.bert(model), neighbours(model, "")[0], KEPT, SEED, mesh)
    bank, average = abstract.objective["bank"], abstract.objective["average"]
    rows = NamedSharding(mesh, PartitionSpec(None, BATCH))
    assert bank.vectors.sharding.is_equivalent_to(rows, 3) and bank.keys.sharding.is_equivalent_to(rows, 2)
    assert abstract.objective["running"].hidden.mean.sharding.is_fully_replicated
    places = jax.tree.map(lambda a, p: a.sharding.is_equivalent_to(p.sharding, a.ndim), average, abstract.params)
    assert all(jax.tree.leaves(places)), "the average lies where the parameters lie"


def test_a_frozen_models_parameters_are_split_as_the_models_are(model, speaker):
    mesh = device_mesh((2, 2, 2))
    _, abstract = step_program(tiny.bert(model), rebuilt(model, speaker)[0], KEPT, SEED, mesh)
    table = abstract.objective["teacher"]["encoder"]["token_embedding"]
    assert table.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec("tensor", "fsdp")), 2)
