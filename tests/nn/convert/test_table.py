"""Rules both ways on a small tree with every kind of rule in it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.errors import InputError
from jaxret.nn.convert.table import Rule, Table
from jaxret.nn.convert.tensor_files import open_tensors, write_safetensors
from jaxret.runtime.mesh import device_mesh

L, D, F, V = 3, 4, 8, 6
ATTENTION = "encoder/layers/attention"
TABLE = Table(
    (
        Rule("embed.weight", "encoder/token_embedding"),
        Rule("layers.{layer}.norm.weight", "encoder/layers/attention_norm/scale", first_layer=1),
        Rule("layers.{layer}.norm.bias", "encoder/layers/attention_norm/bias", first_layer=1),
        *(
            Rule(f"layers.{{layer}}.qkv.{end}", f"{ATTENTION}/{name}/{leaf}", leaf == "kernel", (part, 3))
            for end, leaf in (("weight", "kernel"), ("bias", "bias"))
            for part, name in enumerate(("query", "key", "value"))
        ),
        Rule("layers.{layer}.up.weight", "encoder/layers/mlp/up/kernel", transposed=True),
        Rule("norm.weight", "encoder/final_norm/scale"),
        Rule("norm.gamma", "encoder/final_norm/scale"),
        Rule("head.bias", "dense/projection_0/bias", optional=True),
        Rule("decoder.weight", "lm_head/decoder", optional=True),
    ),
    ignored=(r"pooler\..*",),
)
SPECS = {
    "encoder/token_embedding": ((V, D), ("tensor", "fsdp")),
    "encoder/layers/attention_norm/scale": ((L, D), (None, "fsdp")),
    "encoder/layers/attention_norm/bias": ((L, D), (None, "fsdp")),
    **{f"{ATTENTION}/{n}/kernel": ((L, D, F), (None, "fsdp", "tensor")) for n in ("query", "key", "value")},
    **{f"{ATTENTION}/{n}/bias": ((L, F), (None, "tensor")) for n in ("query", "key", "value")},
    "encoder/layers/mlp/up/kernel": ((L, D, F), (None, "fsdp", "tensor")),
    "encoder/final_norm/scale": ((D,), ()),
    "dense/projection_0/bias": ((2,), ()),
}


def nested(flat):
    tree = {}
    for path, value in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def abstract(mesh=None, dtype=jnp.float32):
    def leaf(shape, spec):
        sharding = NamedSharding(mesh, PartitionSpec(*spec)) if mesh else None
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    return nested({path: leaf(*spec) for path, spec in SPECS.items()})


def their_tensors(dtype=np.float32):
    random = np.random.default_rng(0)

    def values(*shape):
        return random.normal(size=shape).astype(dtype)

    tensors = {"embed.weight": values(V, D), "norm.weight": values(D), "head.bias": values(2)}
    for layer in range(L):
        name = f"layers.{layer}"
        tensors |= {f"{name}.qkv.weight": values(3 * F, D), f"{name}.qkv.bias": values(3 * F)}
        tensors |= {f"{name}.up.weight": values(F, D)}
        if layer:
            tensors |= {f"{name}.norm.weight": values(D), f"{name}.norm.bias": values(D)}
    return tensors


def expected(theirs):
    """Our flat parameters by a plain loop."""

    def stack(name, of):
        return np.stack([of(theirs[f"layers.{layer}.{name}"]) for layer in range(L)])

    flat = {
        "encoder/token_embedding": theirs["embed.weight"],
        "encoder/final_norm/scale": theirs["norm.weight"],
        "dense/projection_0/bias": theirs["head.bias"],
        "encoder/layers/mlp/up/kernel": stack("up.weight", lambda x: x.T),
        "encoder/layers/attention_norm/scale": np.stack(
            [np.ones(D), *(theirs[f"layers.{i}.norm.weight"] for i in (1, 2))]
        ),
        "encoder/layers/attention_norm/bias": np.stack(
            [np.zeros(D), *(theirs[f"layers.{i}.norm.bias"] for i in (1, 2))]
        ),
    }
    for part, name in enumerate(("query", "key", "value")):
        rows = slice(part * F, part * F + F)
        flat[f"{ATTENTION}/{name}/kernel"] = stack("qkv.weight", lambda x, rows=rows: x[rows].T)
        flat[f"{ATTENTION}/{name}/bias"] = stack("qkv.bias", lambda x, rows=rows: x[rows])
    return flat


@pytest.fixture
def folder(tmp_path):
    write_safetensors(tmp_path, their_tensors().items(), max_shard_bytes=500)
    return tmp_path


def shapes(tensors):
    return {name: x.shape for name, x in tensors.items()}


OURS = {path: shape for path, (shape, _) in SPECS.items()}


def checked(theirs=None, ours=None, table=TABLE):
    return table.checked(shapes(their_tensors()) if theirs is None else theirs, OURS if ours is None else ours)


@pytest.mark.parametrize("mesh_shape", [None, (1, 4, 2), (8, 1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_loaded_equals_a_plain_loop(tmp_path, mesh_shape, dtype):
    write_safetensors(tmp_path, their_tensors(dtype).items())
    like = abstract(mesh_shape and device_mesh(mesh_shape))
    params = TABLE.loaded(open_tensors(tmp_path), like)
    wanted = nested(expected(their_tensors(dtype)))

    def check(found, wanted, like):
        assert found.dtype == jnp.float32
        assert like.sharding is None or found.sharding == like.sharding
        np.testing.assert_array_equal(np.asarray(found), wanted.astype(np.float32))

    jax.tree.map(check, params, wanted, like)


def test_loaded_in_another_dtype(folder):
    params = TABLE.loaded(open_tensors(folder), abstract(), dtype=jnp.bfloat16)
    found = params["encoder"]["layers"]["mlp"]["up"]["kernel"]
    wanted = expected(their_tensors())["encoder/layers/mlp/up/kernel"].astype(ml_dtypes.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    assert np.asarray(found).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("mesh_shape", [None, (1, 4, 2)])
def test_saved_is_the_opposite(folder, mesh_shape):
    params = TABLE.loaded(open_tensors(folder), abstract(mesh_shape and device_mesh(mesh_shape)))
    found = dict(TABLE.saved(params))
    theirs = their_tensors()
    assert shapes(found) == shapes(theirs)
    for name, values in found.items():
        assert values.tobytes() == theirs[name].tobytes(), name


def test_saved_in_the_order_of_the_rules_layer_by_layer():
    names = [name for name, _ in TABLE.saved(nested(expected(their_tensors())))]
    layered = [
        f"layers.{i}.{x}" for x in ("norm.weight", "norm.bias", "qkv.weight", "qkv.bias", "up.weight") for i in range(3)
    ]
    layered = [name for name in layered if "0.norm" not in name]
    assert names == ["embed.weight", *layered, "norm.weight", "head.bias"]


def test_saved_in_another_dtype():
    found = dict(TABLE.saved(nested(expected(their_tensors())), np.float16))
    wanted = their_tensors()
    assert all(x.tobytes() == wanted[name].astype(np.float16).tobytes() for name, x in found.items())


def test_a_value_too_large_for_the_dtype_is_refused():
    flat = expected(their_tensors())
    flat[f"{ATTENTION}/key/bias"][1, 0] = 1e5
    with pytest.raises(InputError, match=r"layers.1.qkv.bias: a value of .*key/bias\[1\] is too large for float16"):
        dict(TABLE.saved(nested(flat), np.float16))


def test_saving_leaves_no_copy_with_the_parameters(folder):
    params = TABLE.loaded(open_tensors(folder), abstract(device_mesh((1, 4, 2))))
    for _ in TABLE.saved(params):
        pass
    assert all(leaf._npy_value is None for leaf in jax.tree.leaves(params))


def test_all_problems_come_together():
    theirs, ours = shapes(their_tensors()), dict(OURS)
    del theirs["layers.2.up.weight"], theirs["embed.weight"]
    theirs |= {"layers.3.up.weight": (F, D), "layers.0.norm.weight": (D,), "norm.gamma": (D,), "pooler.dense": (1,)}
    theirs["layers.1.qkv.weight"] = (2 * F, D)
    ours["dense/projection_1/kernel"] = (D, D)
    with pytest.raises(InputError) as error:
        TABLE.checked(theirs, ours, place="some/folder")
    assert error.value.place == "some/folder"
    parts = error.value.problem.split("; ")
    assert parts[0] == "2 unknown tensors: layers.3.up.weight, layers.0.norm.weight"
    assert parts[1] == (
        "2 missing tensors: embed.weight for encoder/token_embedding, "
        "layers.2.up.weight for encoder/layers/mlp/up/kernel[2]"
    )
    kernel = f"layers.1.qkv.weight is [16, 4], not [24, 4] as {ATTENTION}/query/kernel[1] wants"
    assert parts[2].startswith(f"3 shapes that differ: {kernel}, ")
    assert parts[3] == "1 two tensors for one parameter: norm.weight and norm.gamma"
    assert parts[4] == "1 parameters without a rule: dense/projection_1/kernel"
    assert len(parts) == 5


def test_loading_checks(folder):
    tensors = open_tensors(folder)
    del tensors["embed.weight"]
    with pytest.raises(InputError, match=r"^a/b: 1 missing tensors: embed\.weight"):
        TABLE.loaded(tensors, abstract(), place="a/b")


def test_long_lists_are_cut():
    theirs = shapes(their_tensors()) | {f"x{i}": (1,) for i in range(30)}
    with pytest.raises(InputError, match=r"30 unknown tensors: x0, .*, x19, and 10 more\."):
        checked(theirs)


def test_another_spelling_does_as_well():
    theirs = shapes(their_tensors())
    theirs["norm.gamma"] = theirs.pop("norm.weight")
    assert "norm.gamma" in {pair.theirs for pair in checked(theirs)}


def test_a_missing_optional_bias_is_zeros_and_a_missing_optional_scale_ones(folder):
    tensors = open_tensors(folder)
    del tensors["head.bias"], tensors["norm.weight"]
    rules = tuple(replace(r, optional=True) if r.theirs.startswith("norm.") else r for r in TABLE.rules)
    params = Table(rules).loaded(tensors, abstract())
    assert params["dense"]["projection_0"]["bias"].tolist() == [0, 0]
    assert params["encoder"]["final_norm"]["scale"].tolist() == [1] * D


def test_a_missing_optional_kernel_is_still_missing():
    with pytest.raises(InputError, match=r"missing tensors: decoder\.weight for lm_head/decoder"):
        checked(ours=OURS | {"lm_head/decoder": (D, V)})


def test_an_optional_tensor_that_the_model_has_no_place_for_is_passed_over():
    theirs = shapes(their_tensors())
    assert checked(theirs | {"decoder.weight": (V, D)}) == checked(theirs)


def test_a_needed_tensor_that_the_model_has_no_place_for_is_unknown():
    ours = dict(OURS)
    del ours["encoder/final_norm/scale"]
    with pytest.raises(InputError, match=r"1 unknown tensors: norm\.weight\."):
        checked(ours=ours)


def test_ignored_names_must_match_as_a_whole():
    with pytest.raises(InputError, match=r"unknown tensors: my\.pooler\.dense\."):
        checked(shapes(their_tensors()) | {"my.pooler.dense": (1,)})


def test_saving_a_fused_tensor_needs_all_parts():
    flat = expected(their_tensors())
    del flat[f"{ATTENTION}/key/kernel"]
    with pytest.raises(InputError, match=r"layers\.0\.qkv\.weight: would be made of .*query.*value/kernel\[0\] alone"):
        dict(TABLE.saved(nested(flat)))


def test_saving_a_parameter_without_a_rule_is_refused():
    flat = expected(their_tensors()) | {"encoder/layers/mlp/up/lora_a": np.zeros((L, D, 1))}
    with pytest.raises(InputError, match="without a rule: encoder/layers/mlp/up/lora_a"):
        dict(TABLE.saved(nested(flat)))
