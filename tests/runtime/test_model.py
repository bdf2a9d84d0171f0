import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import DESCRIPTION, Model, load_model
from jaxret.runtime.network import VOCABULARY


def test_a_description_comes_back_as_it_was(model, tmp_path):
    before = dataclasses.replace(model, precision="bfloat16")
    before.save_description(tmp_path)
    after = Model.load_description(tmp_path)
    assert after == before
    assert after.tokenizer.encode(["The owl sleeps."]) == model.tokenizer.encode(["The owl sleeps."])


def rewritten(folder, change):
    record = json.loads((folder / DESCRIPTION).read_text())
    change(record)
    (folder / DESCRIPTION).write_text(json.dumps(record))


def test_broken_descriptions_are_input_errors(model, tmp_path):
    model.save_description(tmp_path)
    text = (tmp_path / DESCRIPTION).read_text()
    (tmp_path / DESCRIPTION).write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match=rf"{DESCRIPTION}:\d+: broken JSON"):
        Model.load_description(tmp_path)
    (tmp_path / DESCRIPTION).write_text("[]")
    with pytest.raises(InputError, match=rf"{DESCRIPTION}: not a description"):
        Model.load_description(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("text"),
        lambda record: record["retriever"].pop("encoder"),
        lambda record: record["retriever"].update(colour="red"),
        lambda record: record["retriever"]["encoder"].pop("vocab_size"),
        lambda record: record["text"].update(query_max_len="ten"),
    ],
)
def test_a_description_that_lacks_or_exceeds_fields_is_an_input_error(model, tmp_path, change):
    model.save_description(tmp_path)
    rewritten(tmp_path, change)
    with pytest.raises(InputError):
        Model.load_description(tmp_path)


def test_missing_parts_are_input_errors(model, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        Model.load_description(tmp_path / "nowhere")
    with pytest.raises(InputError, match=DESCRIPTION):
        Model.load_description(tmp_path)
    model.save_description(tmp_path)
    (tmp_path / VOCABULARY).unlink()
    with pytest.raises(InputError, match=VOCABULARY):
        Model.load_description(tmp_path)


def test_parameters_are_float32_and_depend_on_the_seed(model):
    first, again, other = map(jax.jit(model.init), (0, 0, 1))
    assert {leaf.dtype for leaf in jax.tree.leaves(first)} == {jnp.dtype("float32")}
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first["encoder"]["token_embedding"], other["encoder"]["token_embedding"])
    assert jax.tree.map(lambda x: (x.shape, x.dtype), first) == jax.tree.map(
        lambda x: (x.shape, x.dtype), model.abstract_params()
    )


def test_dropout_needs_a_key(model, random_params):
    config = dataclasses.replace(model.config, encoder=dataclasses.replace(model.config.encoder, dropout=0.5))
    dropping, params = dataclasses.replace(model, config=config), random_params(model.abstract_params())
    apply, ids = jax.jit(dropping.apply, static_argnums=2), jnp.array([[2, 5, 9, 3]])
    without, with_, again = (apply(params, ids, "query", rng) for rng in (None, jax.random.key(0), jax.random.key(0)))
    np.testing.assert_array_equal(with_.dense, again.dense)
    assert not np.allclose(without.dense, with_.dense)


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", jnp.bfloat16), ("float32", jnp.float32)])
def test_models_compute_in_their_precision_from_float32_parameters(model, precision, dtype):
    params, ids = model.abstract_params(), jax.ShapeDtypeStruct((1, 4), jnp.int32)
    apply = dataclasses.replace(model, precision=precision).apply
    found = jax.eval_shape(lambda params, ids: apply(params, ids, "query").tokens, params, ids)
    assert found.dtype == dtype


def test_a_trained_model_is_loaded_from_its_workdir(model, random_params, tmp_path):
    model.save_description(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    trees = {step: random_params(model.abstract_params(), seed=step) for step in (0, 7)}
    for step, params in trees.items():
        checkpoints.save(step, params, {"step": jnp.int32(step)}, {"batches": step})
    checkpoints.close()
    mesh = device_mesh((8, 1, 1))
    for step, wanted in ((None, 7), (0, 0)):
        loaded, params, found = load_model(tmp_path, mesh, step)
        assert (loaded, found) == (model, wanted)
        jax.tree.map(np.testing.assert_array_equal, params, trees[wanted])
    with pytest.raises(InputError, match=r"no step 3\. Choose one of 0, 7"):
        load_model(tmp_path, mesh, 3)
