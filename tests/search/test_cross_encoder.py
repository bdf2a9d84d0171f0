"""Scores of many pairs are those of each pair alone, on any mesh, in any order, with few shapes."""

import jax
import numpy as np
import pytest

import jaxret
from jaxret.data.pairs import PairConfig, pair_rows
from jaxret.errors import InputError
from jaxret.nn.config import EncoderConfig
from jaxret.nn.cross_encoder import CrossEncoderConfig
from jaxret.runtime.cross_encoder import CrossEncoderModel
from jaxret.runtime.layouts.cross_encoders import save_cross_encoder
from jaxret.runtime.mesh import device_mesh

PAIRS = [(f"where is {'the ' * (n % 5)}cat?", "The cat sleeps. " * (1 + n % 4) + str(n)) for n in range(13)]


@pytest.fixture(scope="module")
def encoder(tokenizer, random_params):
    sizes = EncoderConfig(tokenizer.size, width=16, num_layers=1, num_heads=2, mlp_width=12, num_types=2)
    model = CrossEncoderModel(CrossEncoderConfig(sizes), PairConfig(96), tokenizer)
    mesh = device_mesh()
    params = jax.device_put(random_params(model.abstract_params()), jax.devices()[0])
    placed = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), params, model.abstract_params(mesh))
    return jaxret.CrossEncoder(model, placed, mesh)


@pytest.fixture(scope="module")
def alone(encoder):
    """The score of each pair by itself, without padding."""
    apply = jax.jit(encoder.model.__call__)
    params = jax.device_get(encoder.params)
    scores = []
    for query, passage in PAIRS:
        row = pair_rows(encoder.model.tokenizer, encoder.model.text, [query], [passage])[0]
        scores.append(apply(params, np.array([row.ids], np.int32), np.array([row.types], np.int32))[0])
    return np.array(scores)


def test_many_pairs_are_each_pair_alone(encoder, alone):
    found = encoder.predict(PAIRS, activation_fn="identity")
    assert found.dtype == np.float32 and np.ptp(alone) > 0.05
    np.testing.assert_allclose(found, alone, atol=1e-5)
    np.testing.assert_allclose(encoder.predict(PAIRS), 1 / (1 + np.exp(-alone)), atol=1e-5)
    before = set(encoder.shapes)
    np.testing.assert_allclose(encoder.predict(PAIRS[::-1], activation_fn="identity"), alone[::-1], atol=1e-5)
    assert encoder.shapes == before and all(rows % 8 == 0 for rows, _ in before)


def test_no_pair_at_all(encoder):
    assert encoder.predict([]).shape == (0,)


def test_rank(encoder, alone):
    query = PAIRS[0][0]
    documents = [passage for _, passage in PAIRS]
    scores = encoder.predict([(query, document) for document in documents])
    found = encoder.rank(query, documents, top_k=4)
    order = sorted(range(len(documents)), key=lambda place: -scores[place])[:4]
    assert [row["corpus_id"] for row in found] == order
    assert [row["score"] for row in found] == [float(scores[place]) for place in order]


def test_another_mesh_and_a_saved_workdir(encoder, alone, tmp_path):
    folder = save_cross_encoder(tmp_path / "model", encoder.model, encoder.params)
    again = jaxret.CrossEncoder.from_pretrained(folder, mesh_shape=(2, 2, 2), activation_fn="identity")
    assert again.model.text == encoder.model.text
    np.testing.assert_allclose(again.predict(PAIRS, batch_size=1), alone, atol=1e-5)
    assert max(rows for rows, _ in again.shapes) == 4


@pytest.mark.parametrize(
    ("pairs", "settings", "message"),
    [
        ([("a", "b"), "ab"], {}, "pair 1: 'ab' is no pair"),
        ([("a",)], {}, "pair 0"),
        ([], {"activation_fn": "tanh"}, "sigmoid, identity"),
        ([], {"batch_size": 0}, "batch_size"),
    ],
)
def test_wrong_input(encoder, pairs, settings, message):
    with pytest.raises(InputError, match=message):
        encoder.predict(pairs, **settings)
