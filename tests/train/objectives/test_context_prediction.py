import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.nn.context_head import HeadStatistics, Statistics
from jaxret.ops.memory_bank import MemoryBank, remembered
from jaxret.train.objectives.context_prediction import predicting_context
from tests.nn.test_context_head import loop as head_loop
from tests.train.objectives import pretraining as tiny

B, LANGUAGES, SIZE, WIDTH = 8, 2, 3, 5
KNOBS = {"temperature": 0.3, "hidden": 6, "features": WIDTH, "norm_momentum": 0.7}


def example(model):
    languages = np.array([0, 1, 0, 0, 1, 1, 0, 1], np.int32)
    documents = np.array([10, 11, 12, 10, 14, 15, 16, 17], np.int32)
    center, context = tiny.texts(model, B, 7, 1), tiny.texts(model, B, 7, 2)
    return {"center": center, "context": context, "language": languages, "document": documents}


def begun(model, random_params, objective, step):
    """Random parameters; a state some steps later, with a bank that is filled in part."""
    params, state = tiny.filled(model, objective, random_params)
    random = np.random.default_rng(5)
    running = (Statistics(random.normal(size=n), random.random(n) + 0.5) for n in (6, WIDTH))
    state = state | {"running": HeadStatistics(*running), "step": np.int32(step)}
    if "bank" in state:
        rings = len(state["bank"].filled)
        vectors = random.normal(size=(rings, SIZE, WIDTH))
        keys = np.array([[15, 16, -1], [10, 11, 12]][:rings], np.int32)
        filled = np.array([2, 3][:rings], np.int32)
        state["bank"] = MemoryBank(vectors, keys, filled % SIZE, filled)
    return params, jax.tree.map(lambda x: jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else jnp.float32), state)


def vectors_of(model, params, state, batch, norm):
    """Both sides' vectors, and statistics, by the head's loop."""
    head, even, sides = tiny.wide(params["objective"]["head"]), int(state["step"]) % 2 == 0, []
    for side, turn in (("center", even), ("context", not even)):
        pooled = np.asarray(tiny.encoded(model, params, batch[side]))[:, 0]
        by_batch = turn or norm != "asymmetric"
        sides.append(head_loop(pooled, state["running"], head, by_batch, norm != "none"))
    return sides


def loop(state, batch, center, context, shared_bank, shared_batch):
    """The loss and how many negatives a sentence has, one pair and one candidate at a time."""
    language, document, bank, losses, negatives = batch["language"], batch["document"], state.get("bank"), [], 0
    for i in range(B):
        total = 0.0
        for own, others in ((center, context), (context, center)):
            among = [own[i] @ others[i]]
            for j in range(B):
                met = j != i and document[i] != document[j] and (shared_batch or language[i] == language[j])
                among += [own[i] @ others[j]] if met else []
            ring = 0 if shared_bank else language[i]
            for place in range(int(bank.filled[ring]) if bank else 0):
                if bank.keys[ring, place] != document[i]:
                    among.append(own[i] @ np.asarray(bank.vectors[ring, place]))
            among = np.array(among) / 0.3
            total += np.log(np.sum(np.exp(among))) - among[0]
            negatives += len(among) - 1
        losses.append(total)
    return np.mean(losses), negatives / (2 * B)


CASES = {
    "centers by the batch": {"step": 4},
    "contexts by the batch": {"step": 5},
    "symmetric": {"step": 4, "norm": "symmetric", "size": 0},
    "none, all languages together": {"step": 4, "norm": "none", "shared_bank": True, "shared_batch": True},
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_a_loop_over_candidates(model, random_params, case):
    bert, settings = tiny.bert(model), {"languages": LANGUAGES, "size": SIZE} | CASES[case]
    step, norm = settings.pop("step"), settings.get("norm", "asymmetric")
    objective, batch = predicting_context(**KNOBS, **settings), example(bert)
    params, state = begun(bert, random_params, objective, step)
    loss, gradients, after, metrics = tiny.valued(bert, objective, params, state, batch)
    (center, of_center), (context, of_context) = vectors_of(bert, params, state, batch, norm)
    shared = settings.get("shared_bank", False)
    expected, negatives = loop(state, batch, center, context, shared, settings.get("shared_batch", False))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert metrics["effective_negatives"] == negatives
    assert after["step"] == step + 1
    for found, before, used in zip(
        after["running"], state["running"], of_context if step % 2 else of_center, strict=True
    ):
        for mine, running, batchs in zip(found, before, used, strict=True):
            np.testing.assert_allclose(mine, 0.7 * running + 0.3 * batchs, rtol=1e-4, atol=1e-5)
    if "bank" in state:
        language = jnp.zeros(B, jnp.int32) if shared else jnp.asarray(batch["language"])
        written = remembered(state["bank"], jnp.asarray(context, jnp.float32), language, jnp.asarray(batch["document"]))
        # Texts differ little before batch normalisation, which takes the differences, rounding among them, to 1.
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), after["bank"], written)
    else:
        assert metrics["memories"] == 0
    keys = {"encoder/layers/attention/key/bias"}
    assert tiny.touched(gradients) - keys == tiny.names(params, "encoder", "objective") - keys


def test_padding_changes_nothing(model, random_params):
    bert, objective = tiny.bert(model), predicting_context(**KNOBS, languages=LANGUAGES, size=SIZE)
    params, state = begun(bert, random_params, objective, 0)
    found, other = (
        tiny.valued(bert, objective, params, state, batch) for batch in (example(bert), tiny.padded(example(bert)))
    )
    np.testing.assert_allclose(other[0], found[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), other[1:3], found[1:3])


def test_contexts_go_through_the_moving_average(model, random_params):
    """At a momentum of 1 the average never moves: the contexts are those of the first parameters."""
    bert, batch = tiny.bert(model), example(model)
    objective = predicting_context(**KNOBS, momentum=1.0)
    params, state = begun(bert, random_params, objective, 0)
    older = random_params(params, 9)
    loss, _, after, _ = tiny.valued(bert, objective, params, state | {"average": older}, batch)
    jax.tree.map(np.testing.assert_array_equal, after["average"], older)
    center = vectors_of(bert, params, state, batch, "asymmetric")[0][0]
    context = vectors_of(bert, older, state, batch, "asymmetric")[1][0]
    np.testing.assert_allclose(loss, loop(state, batch, center, context, True, False)[0], rtol=1e-5)


def test_the_first_average_is_the_model_itself(model):
    objective = predicting_context(**KNOBS, momentum=0.9)
    params, state = jax.eval_shape(lambda: objective.begun(model, model.boxed(0), 0))
    assert jax.tree.structure(state["average"]) == jax.tree.structure(params)


def test_an_unknown_normalisation_is_an_input_error():
    with pytest.raises(InputError, match=r"^predicting_context\.norm: unknown 'batch'. Choose one of asymmetric, "):
        predicting_context(temperature=0.1, norm="batch")
