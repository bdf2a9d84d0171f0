import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.runtime.layouts import LAYOUTS, describe, layout_of, load_pretrained, save_pretrained
from jaxret.runtime.mesh import device_mesh


@pytest.fixture(scope="module")
def params(model, random_params):
    return random_params(model.abstract_params())


def test_a_model_of_our_own_is_saved_and_loaded(model, params, tmp_path):
    folder = save_pretrained(tmp_path / "model", model, params)
    assert layout_of(folder).name == "jaxret"
    again, same = load_pretrained(folder, device_mesh())
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, same, params)


def test_saved_in_another_dtype(model, params, tmp_path):
    folder = save_pretrained(tmp_path / "model", model, params, dtype=jnp.bfloat16)
    same = load_pretrained(folder, device_mesh())[1]
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(x, y.astype(jnp.bfloat16).astype(jnp.float32)), same, params
    )


def test_settings_are_overridden(model, params, tmp_path):
    folder = save_pretrained(tmp_path / "model", model, params)
    again = describe(folder, heads=["dense"], query_prefix="q: ", dropout=0.25, attention="plain").model
    assert again.config.heads == ("dense",) and again.config.encoder.dropout == 0.25
    assert (again.text.query_prefix, again.attention) == ("q: ", "plain")
    with pytest.raises(InputError, match=r"unknown setting 'head'\. Choose from .*heads"):
        describe(folder, head="dense")


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"jaxret"}))
def test_published_layouts_refuse_what_they_cannot_hold_and_leave_nothing(model, params, layout, tmp_path):
    with pytest.raises(InputError, match=r'Save in the layout .*"jaxret"'):
        save_pretrained(tmp_path / "model", model, params, layout)
    assert not list(tmp_path.iterdir())


def test_unknown_layouts_and_folders(model, params, tmp_path):
    with pytest.raises(InputError, match=r"unknown 'onnx'.*Choose one of auto, jaxret"):
        layout_of(tmp_path, "onnx")
    with pytest.raises(InputError, match=r"no checkpoint of a known layout.*modules.json"):
        layout_of(tmp_path)
    (tmp_path / "kept").touch()
    with pytest.raises(InputError, match="is not empty"):
        save_pretrained(tmp_path, model, params)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
