import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxret.errors import InputError
from jaxret.nn.encoder import Encoder
from jaxret.runtime.layouts import save_pretrained
from jaxret.train.objectives.reconstruction import _drawn, reconstructing, reconstruction
from tests.train.objectives import pretraining as tiny

B, N, T, P = 4, 5, 6, 0.5


@pytest.fixture(scope="module")
def decoder(model, random_params, tmp_path_factory):
    """A language model of another width with learned positions, saved, and its parameters."""
    found = tiny.bert(model, "lexical", width=8)
    params = random_params(found.abstract_params(), 7)
    return save_pretrained(tmp_path_factory.mktemp("decoder") / "model", found, params), found, params


def masks_of(rng, target, probability):
    """What is not attended to, and what is replaced, as the loss draws them."""
    real = jnp.asarray(target) >= 0
    return [np.asarray(_drawn(key, real, probability)) for key in jax.random.split(rng)]


def loop(decoder, params, inputs, mask, target, rng, mask_id):
    """One text at a time, without any padding: begin, inputs, target."""
    unseen, replaced = masks_of(rng, target, P)
    table, losses = np.asarray(params["encoder"]["token_embedding"]), []
    encoder = Encoder(decoder.config.encoder)

    def states(x, attended):
        ids, counted = jnp.zeros(attended.shape, jnp.int32), jnp.ones(attended.shape, bool)
        return encoder.apply({"params": params["encoder"]}, ids, attended, counted=counted, embeddings=x)[0]

    program = jax.jit(states)
    for row, ids in enumerate(target):
        ids = ids[ids >= 0]
        seen = np.where(replaced[row, : len(ids)], mask_id, ids)
        begin, given = list(decoder.tokenizer.begin), np.asarray(inputs)[row][np.asarray(mask)[row]]
        x = np.concatenate([table[begin], given, table[seen]])
        attended = np.array([True] * (len(begin) + len(given)) + [not u for u in unseen[row, : len(ids)]])
        found = tiny.wide(program(jnp.asarray(x)[None], jnp.asarray(attended)[None]))[0]
        for place, token in enumerate(ids):
            state = found[len(begin) + len(given) + place - 1]
            share = tiny.head_shares(state, tiny.wide(params["lm_head"]), np.float64(table))
            losses.append(-np.log(share[token]))
    return np.array(losses)


def test_the_loss_is_a_loop_over_texts(model, random_params, decoder):
    _, found, params = decoder
    random = np.random.default_rng(0)
    inputs = jnp.asarray(random.normal(size=(B, N, 8)), jnp.float32)
    mask = jnp.asarray(np.arange(N)[None, :] < np.array([[5], [3], [1], [4]]))
    target, rng = tiny.texts(model, B, T, 3), jax.random.key(3)
    knobs = {"mask_probability": P, "mask_id": 4}
    losses = tiny.quickly(
        lambda *xs: reconstruction(found, *xs, rng, **knobs), params, inputs, mask, jnp.asarray(target)
    )
    expected = loop(found, params, inputs, mask, target, rng, 4)
    np.testing.assert_allclose(np.asarray(losses)[target >= 0], expected, rtol=1e-4)
    assert not np.any(np.asarray(losses)[target < 0])


def test_the_connector_learns_and_the_decoder_does_not(model, random_params, decoder):
    path, _, params = decoder
    bert, objective = tiny.bert(model), reconstructing(decoder=str(path), added=2, mask_id=4)
    own, state = tiny.filled(bert, objective, random_params)
    assert jax.tree.structure(state["decoder"]) == jax.tree.structure(params)
    batch = {"source": tiny.texts(bert, B, N), "target": tiny.texts(bert, B, T, 3)}
    state = {"decoder": params}
    loss, gradients, after, _ = tiny.valued(bert, objective, own, state, batch)
    keys = {"encoder/layers/attention/key/bias"}
    assert tiny.touched(gradients) - keys == tiny.names(own, "encoder", "objective/connector") - keys
    jax.tree.map(np.testing.assert_array_equal, after["decoder"], params)
    other, others, *_ = tiny.valued(bert, objective, own, state, tiny.padded(batch))
    np.testing.assert_allclose(other, loss, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), others, gradients)


def test_both_masks_hide_their_share():
    target = np.where(np.arange(50)[None, :] < 40, 9, -1) * np.ones((200, 1), int)
    unseen, replaced = masks_of(jax.random.key(0), target, 0.3)
    for mask in (unseen, replaced):
        assert abs(mask[:, :40].mean() - 0.3) < 0.015 and not mask[:, 40:].any()
    assert abs((unseen & replaced)[:, :40].mean() - 0.09) < 0.015, "each by itself"


def copied_share(model, probability, steps=400):
    """What a bidirectional decoder learns to lose on random tokens that no input tells it of, as a share of chance."""
    speaker = tiny.bert(model, "lexical")
    optimizer = optax.adam(1e-2)

    def loss(params, key):
        target = jax.random.randint(key, (16, 6), 7, 15)
        nothing, real = jnp.zeros((16, 1, 16)), jnp.ones((16, 1), bool)
        knobs = {"mask_probability": probability, "mask_id": 4}
        return jnp.mean(reconstruction(speaker, params, nothing, real, target, jax.random.fold_in(key, 1), **knobs))

    def step(carry, key):
        params, moments = carry
        value, gradient = jax.value_and_grad(loss)(params, key)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(params, updates), moments), value

    def trained(keys):
        params = speaker.init(0)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[1]

    values = jax.jit(trained)(jax.random.split(jax.random.key(1), steps))
    return float(np.mean(values[-20:])) / np.log(8)


def test_a_bidirectional_decoder_copies_what_is_not_masked(model):
    """At probability 0 the loss goes to nothing without a source; at 0.5 three tokens in four stay unknown."""
    assert copied_share(model, 0.0) < 0.01
    assert 0.72 < copied_share(model, 0.5) < 0.8


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"mask_probability": 0.0, "mask_id": 4}, "mask_probability: 0, and the decoder sees the very tokens"),
        ({"mask_probability": 1.0, "mask_id": 4}, r"mask_probability: 1\.0 is not in \[0, 1\)"),
    ],
)
def test_what_teaches_nothing_is_refused(decoder, knobs, message):
    with pytest.raises(InputError, match=rf"^reconstructing\.{message}"):
        reconstructing(decoder=str(decoder[0]), **knobs)


def test_a_causal_decoder_may_see_all_that_came_before(decoder):
    reconstructing(decoder=str(decoder[0]), mask_probability=0.0, causal=True)
