import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.layouts import Description, describe, save_pretrained
from jaxret.runtime.mesh import device_mesh
from jaxret.train.objective import Objective
from jaxret.train.objectives.context_prediction import predicting_context
from jaxret.train.optimizers import adamw
from jaxret.train.program import global_batch, step_program
from jaxret.train.saving import save, starting_state
from jaxret.train.start import first_state
from tests.train.objectives import pretraining as tiny

SEED, ROWS, STEPS = 3, 8, 3


def batch(model, number):
    sides = {"center": tiny.texts(model, ROWS, 7, number), "context": tiny.texts(model, ROWS, 7, number + 10)}
    numbers = np.arange(ROWS, dtype=np.int32)
    return sides | {"language": numbers % 2, "document": numbers + 3 * number}


def test_steps_that_are_resumed_are_those_of_one_run(model, tmp_path):
    """With parameters of the objective's own, memories, running statistics, turns of the sides and an average."""
    bert = tiny.bert(model, dropout=0.1)
    mesh = device_mesh((8, 1, 1))
    objective = predicting_context(temperature=0.3, languages=2, size=8, momentum=0.9)
    optimizer = adamw(STEPS, learning_rate=0.01)
    step, abstract = step_program(bert, objective, optimizer, SEED, mesh)
    batches = [global_batch(batch(bert, number), mesh) for number in range(STEPS)]
    program = step.lower(abstract, batches[0]).compile()
    first = functools.partial(first_state, Description(bert), objective, optimizer, SEED, abstract)

    def run(folder, state, numbers):
        losses = []
        for number in numbers:
            state, metrics = program(state, batches[number])
            losses.append(float(metrics["loss"]))
        save(folder, numbers.stop, state)
        return losses, jax.device_get(state)

    whole, parts = Checkpoints(tmp_path / "whole"), Checkpoints(tmp_path / "parts")
    losses, expected = run(whole, starting_state(whole, None, first, abstract), range(STEPS))
    early, _ = run(parts, starting_state(parts, None, first, abstract), range(1))
    again = starting_state(parts, 1, lambda: pytest.fail("it starts anew"), abstract)
    jax.tree.map(lambda x, a: x.sharding.is_equivalent_to(a.sharding, x.ndim) or pytest.fail(), again, abstract)
    late, found = run(parts, again, range(1, STEPS))
    assert early + late == losses and len(set(losses)) == STEPS
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    for checkpoints in (whole, parts):
        checkpoints.close()


@pytest.mark.parametrize("saved", [False, True], ids=["fresh", "pretrained"])
def test_what_an_objective_loads_is_there_before_the_first_step(model, random_params, tmp_path, saved):
    def init(model, params, key):
        return {"own": jnp.ones(3)}, {"teacher": jnp.zeros(2)}

    objective = Objective(
        lambda *_: pytest.fail("no step is made"), init, lambda state: {"teacher": state["teacher"] + 7}
    )
    bert, optimizer = tiny.bert(model), optax.trace(0.9)
    description = Description(bert)
    if saved:
        params = random_params(bert.abstract_params())
        description = describe(save_pretrained(tmp_path / "model", bert, params))
    _, abstract = step_program(bert, objective, optimizer, SEED, device_mesh((8, 1, 1)))
    state = first_state(description, objective, optimizer, SEED, abstract)
    np.testing.assert_array_equal(state.objective["teacher"], [7, 7])
    np.testing.assert_array_equal(state.params["objective"]["own"], np.ones(3))
    if saved:
        jax.tree.map(np.testing.assert_array_equal, state.params["encoder"], params["encoder"])
