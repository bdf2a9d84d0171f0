import functools
import json
from contextlib import closing

import jax
import numpy as np
import pytest

from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.layouts import Description
from jaxret.runtime.mesh import device_mesh
from jaxret.train.averages import averaged
from jaxret.train.objectives.memory import remembering
from jaxret.train.optimizers import adamw
from jaxret.train.program import global_batch, step_program
from jaxret.train.saving import published, save, starting_state
from jaxret.train.start import first_state

OBJECTIVE, ROWS, SEED = remembering(size=16, temperature=0.5, momentum=0.9), 8, 3
PLACES = {"8x1x1": ((8, 1, 1), 8), "2x2x2": ((2, 2, 2), 8), "one": ((1, 1, 1), 1)}
# A large epsilon: Adam divides by it, and would make rounding of tiny gradients visible.
EMA = averaged(6, optimizer=functools.partial(adamw, learning_rate=0.01, epsilon=1e-3), decay=0.9)


def batch(model, number):
    draw = np.random.default_rng(number)
    ids = draw.integers(7, model.tokenizer.size, (ROWS, 15)).astype(np.int32)
    keys = draw.integers(0, 30, (ROWS, 1)).astype(np.int32)
    return {"query": ids[:, :6], "passage": ids[:, None, 6:], "passage_key": keys, "positive_keys": keys}


@pytest.mark.slow
def test_a_state_moves_over_meshes_as_if_it_had_stayed(model, tmp_path):
    """With a memory bank, a momentum encoder and an average of the parameters."""
    programs = {
        place: step_program(model, OBJECTIVE, EMA, SEED, device_mesh(shape, jax.devices()[:devices]))
        for place, (shape, devices) in PLACES.items()
    }

    def steps(state, numbers, place):
        shape, devices = PLACES[place]
        mesh, losses = device_mesh(shape, jax.devices()[:devices]), []
        for number in numbers:
            state, metrics = programs[place][0](state, global_batch(batch(model, number), mesh))
            losses.append(float(metrics["loss"]))
        return state, losses

    first = functools.partial(first_state, Description(model), OBJECTIVE, EMA, SEED, programs["8x1x1"][1])
    expected, losses = steps(first(), range(6), "8x1x1")
    found, step = [], None
    with closing(Checkpoints(tmp_path)) as checkpoints:
        for place in PLACES:
            abstract = programs[place][1]
            state = starting_state(checkpoints, step, first, abstract)
            jax.tree.map(lambda x, a: x.sharding.is_equivalent_to(a.sharding, x.ndim) or pytest.fail(), state, abstract)
            start = step or 0
            state, more = steps(state, range(start, start + 2), place)
            found, step = found + more, start + 2
            save(checkpoints, step, state, background=True)
    np.testing.assert_allclose(found, losses, rtol=1e-6, atol=1e-6)
    for a, b in zip(jax.tree.leaves(published(state)), jax.tree.leaves(published(expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    np.testing.assert_allclose(state.objective["bank"].vectors, expected.objective["bank"].vectors, rtol=0, atol=2e-6)


def saved_parts(tmp_path, state):
    """How many parameters stand beside the published ones."""
    with closing(Checkpoints(tmp_path)) as checkpoints:
        save(checkpoints, 1, state)
    saved = json.loads((tmp_path / "1" / "rest" / "_METADATA").read_text())["tree_metadata"]
    return sum(name.startswith("('params', ") for name in saved)


@pytest.mark.parametrize("average", [False, True])
def test_the_trained_parameters_are_saved_once_where_they_are_the_published_ones(model, tmp_path, average):
    optimizer = EMA if average else adamw(6, learning_rate=0.01)
    _, abstract = step_program(model, OBJECTIVE, optimizer, SEED, device_mesh())
    state = first_state(Description(model), OBJECTIVE, optimizer, SEED, abstract)
    count = len(jax.tree.leaves(state.params))
    assert saved_parts(tmp_path, state) == (count if average else 0)
    with closing(Checkpoints(tmp_path)) as checkpoints:
        again = starting_state(checkpoints, 1, lambda: pytest.fail("it starts anew"), abstract)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(state))
