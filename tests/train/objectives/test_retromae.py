import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.errors import InputError
from jaxret.nn.enhanced_decoder import visible_sets
from jaxret.ops.vectors import POOLINGS
from jaxret.runtime.layouts import save_pretrained
from jaxret.runtime.mesh import device_mesh
from jaxret.train.objectives.predicted import embedding
from jaxret.train.objectives.retromae import retromae, retromae_distillation
from tests.nn.plain_decoder import decoded
from tests.train.objectives import pretraining as tiny

RATE = 0.4


def losses_of(model, params, batch, pooling="cls", teacher=None):
    """Both losses, a token at a time; `teacher` gives the shares of tokens at a place."""
    x = tiny.encoded(model, params, batch["encoder_ids"])

    def prepared(params, x, tokens, seed):
        real, embed = tokens >= 0, embedding(model, params, None)
        vectors = POOLINGS[pooling](x, real)
        query = embed(tokens, real, embeddings=jnp.broadcast_to(vectors[:, None], x.shape))
        return vectors, query, embed(tokens, real), visible_sets(seed, real, RATE)

    vectors, query, seen, visible = jax.device_get(
        tiny.quickly(prepared, params, x, batch["tokens"], batch["decoder_seed"])
    )
    seen = np.concatenate([vectors[:, None], seen[:, 1:]], axis=1)
    own, table = tiny.wide(params["objective"]), tiny.wide(params["encoder"]["token_embedding"])
    encoder, decoder = [], []
    for row, tokens in enumerate(batch["tokens"]):
        for place in np.flatnonzero(batch["encoder_where"][row]):
            found = tiny.wide(x)[row, place]
            share = tiny.head_shares(found, own["lm_head"], table) if teacher is None else None
            encoder.append(-np.log(share[tokens[place]]) if teacher is None else teacher(row, place, found))
        length = np.sum(tokens >= 0)
        rebuilt = decoded(own["decoder"], np.float64(query[row]), np.float64(seen[row]), visible[row], 2)
        for place in range(1, length - 1):
            decoder.append(-np.log(tiny.head_shares(rebuilt[place], own["lm_head"], table)[tokens[place]]))
    return np.mean(encoder), np.mean(decoder)


def test_the_loss_is_a_loop_over_tokens(model, random_params):
    bert, objective = tiny.bert(model), retromae(decoder_rate=RATE)
    params, state = tiny.filled(bert, objective, random_params)
    batch = tiny.masked_batch(bert)
    loss, gradients, _, metrics = tiny.valued(bert, objective, params, state, batch)
    encoder, decoder = losses_of(bert, params, batch)
    np.testing.assert_allclose(metrics["loss_encoder"], encoder, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss_decoder"], decoder, rtol=1e-5)
    np.testing.assert_allclose(loss, encoder + decoder, rtol=1e-5)
    keys = {"encoder/layers/attention/key/bias", "objective/decoder/block/attention/key/bias"}
    assert tiny.touched(gradients) - keys == tiny.names(params, "encoder", "objective") - keys


def test_the_decoder_teaches_the_encoder_through_the_vector(model, random_params):
    """Without the encoder's own loss the gradient still reaches its layers, and every one of its positions."""
    bert, objective = tiny.bert(model), retromae()
    params, state = tiny.filled(bert, objective, random_params)
    batch = tiny.masked_batch(bert) | {"encoder_where": np.zeros((8, 9), np.int32)}
    _, gradients, _, metrics = tiny.valued(bert, objective, params, state, batch)
    assert metrics["loss_encoder"] == 0 and metrics["loss_decoder"] > 0
    assert "encoder/layers/attention/value/kernel" in tiny.touched(gradients)


def test_padding_changes_nothing(model, random_params):
    """Nor to a model with rotary positions."""
    objective = retromae()
    params, state = tiny.filled(model, objective, random_params)
    batch = tiny.masked_batch(model)
    loss, gradients, *_ = tiny.valued(model, objective, params, state, batch)
    other, others, *_ = tiny.valued(model, objective, params, state, tiny.padded(batch))
    np.testing.assert_allclose(other, loss, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), others, gradients)


@pytest.fixture(scope="module")
def teacher(model, random_params, tmp_path_factory):
    """A SPLADE of another width, saved, and its parameters."""
    found = tiny.bert(model, "lexical", width=8, num_layers=2)
    params = random_params(found.abstract_params(), 7)
    return save_pretrained(tmp_path_factory.mktemp("teacher") / "model", found, params), found, params


def test_the_teachers_shares_take_the_place_of_the_tokens(model, random_params, teacher):
    path, taught, known = teacher
    bert, objective = (
        tiny.bert(model),
        retromae_distillation(teacher=str(path), temperature=2.0, decoder_rate=RATE, pooling="mean"),
    )
    params, state = tiny.filled(bert, objective, random_params)
    batch = tiny.masked_batch(bert)
    theirs = tiny.wide(tiny.encoded(taught, known, batch["encoder_ids"]))
    heads = [tiny.wide(tree) for tree in (known["lm_head"], params["objective"]["lm_head"])]
    tables = [tiny.wide(tree["encoder"]["token_embedding"]) for tree in (known, params)]

    def cross_entropy(row, place, own):
        shares = [
            tiny.shares(np.log(tiny.head_shares(x, head, table)) / 2.0)
            for x, head, table in zip((theirs[row, place], own), heads, tables, strict=True)
        ]
        return -np.sum(shares[0] * np.log(shares[1]))

    loss, gradients, after, metrics = tiny.valued(bert, objective, params, state | {"teacher": known}, batch)
    encoder, decoder = losses_of(bert, params, batch, "mean", cross_entropy)
    np.testing.assert_allclose(metrics["distillation_encoder"], encoder, rtol=1e-5)
    np.testing.assert_allclose(loss, encoder + decoder, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after["teacher"], known)
    assert "encoder/layers/attention/value/kernel" in tiny.touched(gradients)


def test_the_teacher_is_read_from_its_files(model, random_params, teacher):
    path, _, known = teacher
    objective = retromae_distillation(teacher=str(path))
    _, state = tiny.filled(tiny.bert(model), objective, random_params)
    mesh = device_mesh((1, 1, 1), jax.devices()[:1])
    on_mesh = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    jax.tree.map(np.testing.assert_array_equal, objective.load(on_mesh)["teacher"], known)


def test_a_teacher_without_a_head_or_of_another_vocabulary_is_an_input_error(model, random_params, teacher, tmp_path):
    dense = tiny.bert(model)
    save_pretrained(tmp_path / "dense", dense, random_params(dense.abstract_params()))
    with pytest.raises(InputError, match=r"^retromae_distillation\.teacher: .*dense has no language model's head"):
        retromae_distillation(teacher=str(tmp_path / "dense"))
    objective = retromae_distillation(teacher=str(teacher[0]))
    larger = tiny.bert(model)
    encoder = dataclasses.replace(larger.config.encoder, vocab_size=larger.config.encoder.vocab_size + 1)
    larger = dataclasses.replace(larger, config=dataclasses.replace(larger.config, encoder=encoder))
    with pytest.raises(InputError, match=r"^retromae_distillation\.teacher: its vocabulary has \d+ entries, the model"):
        objective.init(larger, {}, jax.random.key(0))
