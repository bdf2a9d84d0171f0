import jax
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.runtime.mesh import BATCH, device_mesh
from jaxret.train.program import step_program
from tests.train.objectives import pretraining as tiny
from tests.train.objectives.cases import CASES


def abstract_state(case, mesh):
    return step_program(case.model, case.objective, optax.sgd(1.0), 0, mesh)[1]


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_memories_are_split_as_batches_are(model, shape):
    mesh = device_mesh(shape)
    abstract = abstract_state(CASES["context"](model, ""), mesh)
    bank, average = abstract.objective["bank"], abstract.objective["average"]
    rows = NamedSharding(mesh, PartitionSpec(None, BATCH))
    assert bank.vectors.sharding.is_equivalent_to(rows, 3) and bank.keys.sharding.is_equivalent_to(rows, 2)
    assert abstract.objective["running"].hidden.mean.sharding.is_fully_replicated
    places = jax.tree.map(lambda a, p: a.sharding.is_equivalent_to(p.sharding, a.ndim), average, abstract.params)
    assert all(jax.tree.leaves(places)), "the average lies where the parameters lie"


def test_a_frozen_models_parameters_are_split_as_the_models_are(model, random_params, tmp_path):
    mesh = device_mesh((2, 2, 2))
    speaker = tiny.speaker(model, random_params, tmp_path / "speaker")
    abstract = abstract_state(CASES["retromae"](model, speaker), mesh)
    table = abstract.objective["teacher"]["encoder"]["token_embedding"]
    assert table.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec("tensor", "fsdp")), 2)
