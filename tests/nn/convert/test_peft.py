import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.errors import InputError
from jaxret.nn.convert.peft import load_adapter, save_adapter
from jaxret.nn.convert.table import Table
from jaxret.nn.convert.tensor_files import open_tensors, write_safetensors
from jaxret.nn.lora import LoraConfig, adapter, joined, lora_params, merged
from tests.nn.convert.adapted_stack import GOLDENS, TABLE, stack_output, stack_params

CASES = sorted(path.parent.name for path in GOLDENS.glob("*/adapter_config.json"))
QKV = LoraConfig(("attention/.*",), rank=2, alpha=3.0)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDENS / "golden.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def params(golden):
    return stack_params({name.removeprefix("base/"): array for name, array in golden.items() if "base/" in name})


@pytest.fixture
def folder(tmp_path):
    """A copy of the plain adapter, to damage."""
    for path in (GOLDENS / "plain").iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path


def settings_with(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def tensors_of(folder):
    return {name: tensor.read() for name, tensor in open_tensors(folder / "adapter_model.safetensors").items()}


def rewritten(folder, tensors):
    write_safetensors(folder / "adapter_model.safetensors", list(tensors.items()))


def outputs(params, folder, x, table=TABLE):
    leaves, config = load_adapter(folder, table, params)
    return stack_output(joined(params, leaves), x, config)


def all_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_there_are_goldens():
    assert CASES == ["fused", "patterns", "pickled", "plain", "rslora", "some_layers"]


def test_the_stack_is_the_original(params, golden):
    np.testing.assert_allclose(stack_output(params, golden["x"]), golden["y/none"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_pefts(params, golden, case):
    assert not np.allclose(golden[f"y/{case}"], golden["y/none"], atol=0.05)
    leaves, config = load_adapter(GOLDENS / case, TABLE, params)
    whole = joined(params, leaves)
    np.testing.assert_allclose(stack_output(whole, golden["x"], config), golden[f"y/{case}"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        stack_output(merged(whole, config), golden["x"]), golden[f"y/{case}"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("case", CASES)
def test_a_saved_adapter_loads_again(params, case, tmp_path):
    leaves, config = load_adapter(GOLDENS / case, TABLE, params)
    save_adapter(tmp_path, joined(params, leaves), config, TABLE)
    again, config_again = load_adapter(tmp_path, TABLE, params)
    assert dataclasses.replace(config_again, alpha=config.alpha) == config
    assert config_again.alpha == pytest.approx(config.alpha, rel=1e-12)
    all_equal(again, leaves)


@pytest.mark.parametrize("case", ["plain", "fused", "some_layers"])
def test_an_adapter_is_saved_as_peft_saved_it(params, case, tmp_path):
    leaves, config = load_adapter(GOLDENS / case, TABLE, params)
    save_adapter(tmp_path, leaves, config, TABLE)
    theirs, ours = tensors_of(GOLDENS / case), tensors_of(tmp_path)
    assert ours.keys() == theirs.keys()
    all_equal(ours, theirs)
    records = [json.loads((place / "adapter_config.json").read_text()) for place in (GOLDENS / case, tmp_path)]
    for name in ("peft_type", "r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "bias"):
        assert records[0][name] == records[1][name], name
    modules = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in theirs}
    assert set(records[1]["target_modules"]) == modules


@pytest.mark.parametrize("targets", ["attention/.*", "attention/value", "attention/(query|value)"])
def test_parts_with_their_own_a_become_one_update(params, golden, random_params, targets, tmp_path):
    config = LoraConfig((targets,), rank=2, alpha=3.0)
    leaves = random_params(adapter(lora_params(params, config, jax.random.key(0))), seed=4)
    expected = stack_output(joined(params, leaves), golden["x"], config)
    assert not np.allclose(expected, golden["y/none"], atol=0.05)
    save_adapter(tmp_path, leaves, config, TABLE)
    np.testing.assert_allclose(outputs(params, tmp_path, golden["x"]), expected, rtol=1e-5, atol=1e-5)


def test_layers_without_an_adapter_get_zeros(params):
    leaves, _ = load_adapter(GOLDENS / "some_layers", TABLE, params)
    for path, leaf in flatten_dict(leaves, sep="/").items():
        assert [bool(np.any(leaf[layer])) for layer in range(3)] == [True, False, True], path


def test_leaves_go_where_their_kernels_are(params):
    mesh = jax.make_mesh((2, 3), ("fsdp", "tensor"), devices=jax.devices()[:6])
    split = NamedSharding(mesh, PartitionSpec(None, "fsdp", "tensor"))

    def abstract(path, leaf):
        up = "up" in jax.tree_util.keystr(path)
        sharding = split if up else NamedSharding(mesh, PartitionSpec())
        return jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=sharding)

    leaves, _ = load_adapter(GOLDENS / "plain", TABLE, jax.tree_util.tree_map_with_path(abstract, params))
    up = leaves["layers"]["mlp"]["up"]
    assert up["lora_a"].sharding == NamedSharding(mesh, PartitionSpec(None, "fsdp", None))
    assert up["lora_b"].sharding == NamedSharding(mesh, PartitionSpec(None, None, "tensor"))
    whole, _ = load_adapter(GOLDENS / "plain", TABLE, params)
    all_equal(leaves, whole)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(leaves))


@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: name.replace(".weight", ".default.weight"),
        lambda name: name.replace("base_model.model.", "base_model.model.body."),
        lambda name: name.replace("base_model.model.layers", "base_model.model.body.layers"),
        lambda name: name.removeprefix("base_model.model."),
    ],
    ids=["adapter name", "prefix", "prefix of the body alone", "as transformers saves it"],
)
def test_spellings(params, golden, folder, renamed):
    rewritten(folder, {renamed(name): values for name, values in tensors_of(folder).items()})
    np.testing.assert_allclose(outputs(params, folder, golden["x"]), golden["y/plain"], rtol=1e-5, atol=1e-5)


def test_ignored_modules_are_left_out(params, golden, folder):
    extra = {
        f"base_model.model.pooler.dense.lora_{side}.weight": np.ones(shape, np.float32)
        for side, shape in (("A", (2, 6)), ("B", (6, 2)))
    }
    rewritten(folder, tensors_of(folder) | extra)
    np.testing.assert_allclose(outputs(params, folder, golden["x"]), golden["y/plain"], rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"unknown modules pooler\.dense.*layers\.\{layer\}\.mlp\.up"):
        outputs(params, folder, golden["x"], Table(TABLE.rules))


def test_bfloat16_adapters_become_float32(params, golden, tmp_path):
    leaves, config = load_adapter(GOLDENS / "plain", TABLE, params)
    save_adapter(tmp_path, leaves, config, TABLE, dtype=jnp.bfloat16)
    assert all(tensor.dtype == jnp.bfloat16 for tensor in tensors_of(tmp_path).values())
    again, _ = load_adapter(tmp_path, TABLE, params)
    all_equal(again, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), leaves))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora True is not supported"),
        ({"modules_to_save": ["head"]}, r"modules_to_save \['head'\] is not supported"),
        ({"bias": "all"}, "bias 'all' is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' is not supported"),
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not supported"),
        ({"invented_later": {"x": 1}}, "invented_later .* is not supported"),
        ({"r": 0}, "not all above 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_change_the_model_are_refused(params, folder, changes, message):
    settings_with(folder, **changes)
    with pytest.raises(InputError, match=message):
        load_adapter(folder, TABLE, params)


UP = "base_model.model.layers.1.mlp.up"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda tensors: tensors.pop(f"{UP}.lora_A.weight"), r"found layers\.1\.mlp\.up"),
        (
            lambda tensors: tensors.update({f"{UP}.bias": np.ones(9)}),
            r"found base_model\.model\.layers\.1\.mlp\.up\.bias",
        ),
        (
            lambda tensors: tensors.update({f"{UP}.lora_A.weight": np.ones((2, 7))}),
            r"layers\.1\.mlp\.up\.lora_A is \[2, 7\], not \[2, 6\]",
        ),
        (
            lambda tensors: tensors.update({name.replace(".1.", ".3."): tensors.pop(name) for name in [*tensors]}),
            r"layers\.3\.mlp\.down where there are 3 layers",
        ),
        (
            lambda tensors: tensors.update({name.replace("up", "sideways"): tensors.pop(name) for name in [*tensors]}),
            r"unknown modules layers\.0\.mlp\.sideways, ",
        ),
        (
            lambda tensors: tensors.update({f"{UP}.lora_A.other.weight": tensors.pop(f"{UP}.lora_A.weight")}),
            "several adapters",
        ),
        (
            lambda tensors: tensors.update(
                {name.replace("model.layers", "model.twin.layers"): values for name, values in tensors.items()}
            ),
            "rival modules",
        ),
    ],
)
def test_tensors_that_do_not_fit(params, folder, changed, message):
    tensors = tensors_of(folder)
    changed(tensors)
    rewritten(folder, tensors)
    with pytest.raises(InputError, match=message):
        load_adapter(folder, TABLE, params)


def test_folders_that_are_none(params, folder):
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="no adapter weights"):
        load_adapter(folder, TABLE, params)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="not PEFT's"):
        load_adapter(folder, TABLE, params)


def test_saving_needs_leaves_and_rules(params, tmp_path):
    with pytest.raises(InputError, match="no LoRA leaves"):
        save_adapter(tmp_path, params, QKV, TABLE)
    leaves = lora_params(params, QKV, jax.random.key(0))
    with pytest.raises(InputError, match="no rule for layers/attention/query/lora_a"):
        save_adapter(tmp_path, leaves, QKV, Table(TABLE.rules[1:]))
    assert not list(tmp_path.iterdir())
