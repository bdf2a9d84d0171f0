import functools
from collections import deque
from contextlib import closing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.mesh import device_mesh
from jaxret.train.objective import OWN, Objective
from jaxret.train.objectives.memory import moved, remembering
from jaxret.train.program import global_batch, step_program
from jaxret.train.start import begun
from tests.train.objectives.embeddings import nll

B, N, LANGUAGES, SIZE, STEPS = 8, 2, 3, 16, 50
TEMPERATURE, RATE = 0.3, 0.05


@pytest.fixture(scope="module")
def batches(model):
    """Batches whose texts come back, so that memories of known positives occur."""
    random = np.random.default_rng(0)
    texts = random.integers(7, model.tokenizer.size, (20, 9)).astype(np.int32)
    found = []
    for _ in range(STEPS):
        keys = random.integers(0, 20, (B, N)).astype(np.int32)
        language = random.integers(0, LANGUAGES, B).astype(np.int32)
        query = random.integers(7, model.tokenizer.size, (B, 6)).astype(np.int32)
        others = random.integers(0, 20, (B, 2)).astype(np.int32)
        positive = np.concatenate([keys[:, :1], np.where(others < 10, others, -1)], axis=1)
        batch = {"query": query, "passage": texts[keys], "passage_key": keys, "language": language}
        found.append(batch | {"positive_keys": positive})
    return found


def started(model, objective, mesh, params):
    step, abstract = step_program(model, objective, optax.sgd(RATE), 0, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    start = functools.partial(begun, model, objective, optax.sgd(RATE), 0)
    return step, abstract, jax.jit(start, out_shardings=shardings)(params)


@pytest.fixture(scope="module")
def params(model, random_params):
    return random_params(model.abstract_params())


@pytest.mark.parametrize(("momentum", "steps"), [(None, STEPS), (0.5, 8)])
def test_losses_are_those_of_plain_queues(model, params, batches, momentum, steps, tmp_path):
    """On eight devices, the state through a checkpoint in the middle."""
    objective = remembering(size=SIZE, temperature=TEMPERATURE, languages=LANGUAGES, momentum=momentum)
    mesh = device_mesh((4, 2, 1))
    step, abstract, state = started(model, objective, mesh, params)
    apply = jax.jit(model.apply, static_argnums=2)
    average = params
    rings = [deque(maxlen=SIZE) for _ in range(LANGUAGES)]
    for number, batch in enumerate(batches[:steps]):
        if momentum is not None:
            average = jax.jit(functools.partial(moved, momentum=momentum))(average, jax.device_get(state.params))
        now = jax.device_get(state.params)
        q = np.asarray(apply(now, batch["query"], "query").dense)
        d = np.asarray(apply(average if momentum else now, batch["passage"].reshape(B * N, -1), "passage").dense)
        columns, losses, negatives = batch["passage_key"].reshape(-1), [], 0
        for i, language in enumerate(batch["language"]):
            ring = rings[language]
            logits = np.concatenate([d @ q[i], [vector @ q[i] for vector, _ in ring]]) / TEMPERATURE
            keys = [*columns, *(key for _, key in ring)]
            kept = [key not in batch["positive_keys"][i] for key in keys]
            losses.append(nll(logits[None], [i * N], np.array([kept]))[0])
            negatives += sum(kept[: i * N] + kept[i * N + 1 :])
        state, metrics = step(state, global_batch(batch, mesh))
        np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=2e-5, err_msg=f"step {number}")
        assert metrics["effective_negatives"] == negatives / B
        for i, language in enumerate(batch["language"]):
            rings[language].append((d[i * N], batch["passage_key"][i, 0]))
        if number == steps // 2:
            with closing(Checkpoints(tmp_path)) as checkpoints:
                checkpoints.save(1, state.params, state.objective, {"batches": number})
                restored = checkpoints.restore(1, abstract.params, abstract.objective)
            state = state.replace(params=restored[0], objective=restored[1])
    assert state.objective["bank"].filled.tolist() == [len(ring) for ring in rings]
    assert state.objective["bank"].vectors.addressable_shards[0].data.shape == (LANGUAGES, SIZE // 8, 8)


def test_a_bank_that_does_not_divide_is_refused(model):
    with pytest.raises(ValueError, match="size 12 does not divide over 8 devices"):
        step_program(model, remembering(size=12, temperature=1.0), optax.sgd(RATE), 0, device_mesh((8, 1, 1)))


def test_an_objectives_own_parameters_are_trained_and_kept_apart(model, params, batches):
    def init(model, params, key):
        weights = nn.LogicallyPartitioned(jax.random.normal(key, (8, 4)), (None, "mlp"))
        return {"weights": weights}, {"copy": params["dense"], "steps": jnp.zeros((), jnp.int32)}

    def loss(model, params, state, batch, rng):
        x = model(params, batch["query"], "query", rng).dense
        value = jnp.sum(jnp.square(x @ params[OWN]["weights"]))
        return value, (state | {"steps": state["steps"] + 1}, {})

    mesh = device_mesh((2, 2, 2))
    step, abstract, state = started(model, Objective(loss, init), mesh, params)
    assert abstract.params[OWN]["weights"].sharding.spec == jax.sharding.PartitionSpec(None, "tensor")
    jax.tree.map(
        lambda x, y: x.sharding.is_equivalent_to(y.sharding, x.ndim) or pytest.fail(),
        abstract.objective["copy"],
        abstract.params["dense"],
    )
    before = np.asarray(state.params[OWN]["weights"])
    arrays = global_batch(batches[0], mesh)
    x = np.asarray(jax.jit(model.apply, static_argnums=2)(params, batches[0]["query"], "query").dense)
    state, _ = step(state, arrays)
    gradient = 2 * x.T @ (x @ before)
    np.testing.assert_allclose(state.params[OWN]["weights"], before - RATE * gradient, rtol=1e-4, atol=1e-6)
    assert int(state.objective["steps"]) == 1


def test_a_language_without_memories_is_refused(batches):
    check = remembering(size=8, temperature=1.0, languages=2).check
    with pytest.raises(ValueError, match=r"remembering\.languages: 2, but the batch has language number 2"):
        check(batches[0])
    remembering(size=8, temperature=1.0).check(batches[0])
