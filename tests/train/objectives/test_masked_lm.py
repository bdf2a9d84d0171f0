import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.heads import LMHeadConfig
from jaxret.train.objectives.masked_lm import masked_language_modeling
from jaxret.train.objectives.predicted import in_pieces
from tests.train.objectives import pretraining as tiny


def head_of(params):
    return params["objective"]["lm_head"] if "objective" in params else params["lm_head"]


def loop(model, params, batch, most):
    x = tiny.wide(tiny.encoded(model, params, batch["masked"]))
    head, table = tiny.wide(head_of(params)), tiny.wide(params["encoder"]["token_embedding"])
    losses, right = [], []
    for row, tokens in enumerate(batch["tokens"]):
        for place in np.flatnonzero(batch["where"][row])[:most]:
            share = tiny.head_shares(x[row, place], head, table)
            losses.append(-np.log(share[tokens[place]]))
            right.append(np.argmax(share) == tokens[place])
    return np.mean(losses), np.mean(right)


@pytest.mark.parametrize(("heads", "most"), [(("dense",), None), (("dense", "lexical"), 1)], ids=["own", "splade"])
def test_the_loss_is_a_loop_over_masked_tokens(model, random_params, heads, most):
    bert = tiny.bert(model, *heads)
    objective = masked_language_modeling(most=most)
    params, state = tiny.filled(bert, objective, random_params)
    assert ("objective" in params) == (heads == ("dense",)) and state == {}
    batch = tiny.masked_batch(bert)
    loss, gradients, _, metrics = tiny.valued(bert, objective, params, state, batch)
    expected, accuracy = loop(bert, params, batch, most)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], accuracy, rtol=1e-6)
    keys = {"encoder/layers/attention/key/bias"}  # a softmax does not feel it
    expected = tiny.names(params, "encoder", "objective/lm_head", "lm_head") - keys
    assert tiny.touched(gradients) - keys == expected


def test_padding_changes_nothing(model, random_params):
    bert, objective = tiny.bert(model), masked_language_modeling()
    params, state = tiny.filled(bert, objective, random_params)
    batch = tiny.masked_batch(bert)
    loss, gradients, *_ = tiny.valued(bert, objective, params, state, batch)
    # 37 positions are read in two pieces.
    other, others, *_ = tiny.valued(bert, objective, params, state, tiny.padded(batch, 28))
    np.testing.assert_allclose(other, loss, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), others, gradients)


@pytest.mark.parametrize(
    "positions", [{}, {"position_offset": 2}, {"positions": "rotary", "max_positions": 0}], ids=str
)
def test_packed_rows_cost_what_their_texts_do(model, random_params, positions):
    """Eight texts, one a row or several: the same loss and gradients."""
    bert, objective = tiny.bert(model, **positions), masked_language_modeling()
    params, state = tiny.filled(bert, objective, random_params)
    batch = tiny.masked_batch(bert)
    lengths = (batch["tokens"] >= 0).sum(1)
    begins = np.cumsum(lengths) - lengths
    places = begins // 25 * 34 + begins % 25  # rows of 34, with padding
    packed = {name: np.full(4 * 34, -1, np.int32) for name in ("tokens", "masked", "segments")}
    packed |= {"where": np.zeros(4 * 34, np.int32)}
    for row, (place, length) in enumerate(zip(places, lengths, strict=True)):
        for name in ("tokens", "masked", "where"):
            packed[name][place : place + length] = batch[name][row, :length]
        packed["segments"][place : place + length] = row
    packed = {name: x.reshape(4, 34) for name, x in packed.items()}
    assert packed["where"].sum() == batch["where"].sum()
    loss, gradients, _, metrics = tiny.valued(bert, objective, params, state, batch)
    other, others, _, found = tiny.valued(bert, objective, params, state, packed)
    np.testing.assert_allclose(other, loss, rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"], metrics["accuracy"], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), others, gradients)


def test_an_untied_head_has_a_table_of_its_own(model, random_params):
    objective = masked_language_modeling(head=LMHeadConfig(transform=False, bias=False, tied=False))
    params, state = tiny.filled(tiny.bert(model), objective, random_params)
    assert set(params["objective"]["lm_head"]) == {"decoder"}
    bert, batch = tiny.bert(model), tiny.masked_batch(model)
    loss, *_ = tiny.valued(bert, objective, params, state, batch)
    x, table = (
        tiny.wide(tiny.encoded(bert, params, batch["masked"])),
        tiny.wide(head_of(params)["decoder"]),
    )
    kept = batch["where"] > 0
    expected = -np.log(tiny.shares(x[kept] @ table.T))[np.arange(kept.sum()), batch["tokens"][kept]]
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)


def test_a_tied_head_without_parameters_adds_none(model, random_params):
    objective = masked_language_modeling(head=LMHeadConfig(transform=False, bias=False))
    params, state = tiny.filled(tiny.bert(model), objective, random_params)
    assert "objective" not in params
    loss, *_ = tiny.valued(tiny.bert(model), objective, params, state, tiny.masked_batch(model))
    assert np.isfinite(loss)


def test_a_batch_without_masked_tokens_costs_nothing(model, random_params):
    bert, objective = tiny.bert(model), masked_language_modeling()
    params, state = tiny.filled(bert, objective, random_params)
    batch = tiny.masked_batch(bert) | {"where": np.zeros((8, 9), np.int32)}
    loss, gradients, *_ = tiny.valued(bert, objective, params, state, batch)
    assert loss == 0 and not tiny.touched(gradients)


@pytest.mark.parametrize("length", [3, 4, 10])
def test_pieces_are_the_whole(length):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, length, 3)), jnp.float32)

    def function(x):
        return jnp.sum(x**3, axis=-1), jnp.sin(x)

    found = in_pieces(function, x, size=4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, function(x))
    slopes = [jax.grad(lambda x, size=size: jnp.sum(in_pieces(function, x, size=size)[0]))(x) for size in (4, 100)]
    np.testing.assert_allclose(*slopes, rtol=1e-6)
