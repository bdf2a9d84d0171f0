from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.errors import InputError
from jaxret.nn.layers import Dense
from jaxret.nn.lora import LoraConfig, abstract_lora, adapter, joined, lora_params, merged, trainable, with_lora

LAYERS, WIDTH, OUT, ROWS = 3, 6, 5, (2, 4)
CONFIG = LoraConfig(targets=("layers/up", "layers/down", "head"), rank=2, alpha=7.0)
X = jnp.float32(np.random.default_rng(1).normal(size=(*ROWS, WIDTH)))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = jnp.tanh(Dense(9, (None, None), use_bias=True, name="up")(x))
        return x + Dense(WIDTH, (None, None), name="down")(hidden), None


class Stack(nn.Module):
    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=LAYERS,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = layers(name="layers")(x)
        return Dense(OUT, (None, None), name="head")(x)


@pytest.fixture(scope="module")
def base(random_params):
    return random_params(nn.meta.unbox(jax.eval_shape(Stack().init, jax.random.key(0), X)["params"]))


@pytest.fixture(scope="module")
def adapted(base, random_params):
    leaves = random_params(adapter(lora_params(base, CONFIG, jax.random.key(0))), seed=5)
    return joined(base, jax.tree.map(lambda leaf: 0.5 * leaf, leaves))


@partial(jax.jit, static_argnames="config")
def output(params, x=X, config=CONFIG, seed=None):
    with with_lora(config, deterministic=seed is None):
        rngs = None if seed is None else {"dropout": jax.random.key(seed)}
        return Stack().apply({"params": params}, x, rngs=rngs)


def plain(params):
    """The same in NumPy, a layer at a time, in float64."""
    scale = CONFIG.alpha / CONFIG.rank

    def dense(leaves, x):
        leaves = {name: np.float64(leaf) for name, leaf in leaves.items()}
        y = x @ leaves["kernel"] + leaves.get("bias", 0.0)
        return y + scale * ((x @ leaves["lora_a"]) @ leaves["lora_b"])

    x = np.float64(X)
    for number in range(LAYERS):
        layer = jax.tree.map(lambda leaf, number=number: leaf[number], params["layers"])
        x = x + dense(layer["down"], np.tanh(dense(layer["up"], x)))
    return dense(params["head"], x)


def test_equals_a_plain_loop(adapted):
    np.testing.assert_allclose(output(adapted), plain(adapted), rtol=1e-5, atol=1e-5)


def test_merged_equals_intercepted(adapted, base):
    whole = merged(adapted, CONFIG)
    assert jax.tree.structure(whole) == jax.tree.structure(base)
    np.testing.assert_allclose(Stack().apply({"params": whole}, X), output(adapted), rtol=1e-5, atol=1e-5)
    assert not np.allclose(output(adapted), Stack().apply({"params": base}, X), atol=0.1)


def test_fresh_leaves_are_invisible_and_as_peft_draws_them(base):
    wide = {"layers": {"up": {"kernel": jnp.zeros((2, 400, 3))}}}
    fresh = lora_params(wide, LoraConfig(("up",), rank=50), jax.random.key(3))["layers"]["up"]
    a = np.asarray(fresh["lora_a"])
    assert a.shape == (2, 400, 50)
    assert a.dtype == np.float32
    assert np.abs(a).max() <= 1 / 20
    np.testing.assert_allclose([a.mean(), a.std()], [0, 1 / 20 / np.sqrt(3)], atol=1e-3)
    assert not np.allclose(a[0], a[1])
    assert fresh["lora_b"].shape == (2, 50, 3)
    params = lora_params(base, CONFIG, jax.random.key(3))
    np.testing.assert_array_equal(output(params), Stack().apply({"params": base}, X))


def test_fresh_leaves_depend_on_the_key_and_the_path_alone(base):
    whole = lora_params(base, CONFIG, jax.random.key(0))
    part = lora_params(base, LoraConfig(("down",), rank=2), jax.random.key(0))
    np.testing.assert_array_equal(whole["layers"]["down"]["lora_a"], part["layers"]["down"]["lora_a"])
    other = lora_params(base, CONFIG, jax.random.key(1))
    assert not np.allclose(whole["head"]["lora_a"], other["head"]["lora_a"])
    twins = lora_params({name: {"kernel": jnp.zeros((4, 3))} for name in "pq"}, LoraConfig((".",)), jax.random.key(0))
    assert not np.allclose(twins["p"]["lora_a"], twins["q"]["lora_a"])


def test_targets_are_whole_parts_of_a_path(base):
    def leaves(*targets):
        return set(flatten_dict(adapter(lora_params(base, LoraConfig(targets), jax.random.key(0))), sep="/"))

    assert leaves("(up|head)") == {f"{m}/lora_{s}" for m in ("layers/up", "head") for s in "ab"}
    assert leaves("layers/.*") == {f"layers/{m}/lora_{s}" for m in ("up", "down") for s in "ab"}
    assert leaves("layers/up/kernel", "up") == {"layers/up/lora_a", "layers/up/lora_b"}
    with pytest.raises(InputError, match=r"'ayers/up' matches no kernel.*head/kernel.*layers/down/kernel"):
        leaves("head", "ayers/up")


def test_each_layer_uses_its_own_leaves(adapted):
    before = np.asarray(output(adapted))
    for number in range(LAYERS):
        other = adapted["layers"]["up"]["lora_a"].at[number].set(0.0)
        layers = adapted["layers"] | {"up": adapted["layers"]["up"] | {"lora_a": other}}
        after = output(adapted | {"layers": layers})
        np.testing.assert_allclose(after, plain(adapted | {"layers": layers}), rtol=1e-5, atol=1e-5)
        assert not np.allclose(before, after, atol=1e-3)


def test_gradient_of_the_leaves(adapted):
    def through_leaves(leaves):
        return jnp.mean(output(joined(adapted, leaves)) ** 2)

    def through_kernels(leaves):
        return jnp.mean(Stack().apply({"params": merged(joined(adapted, leaves), CONFIG)}, X) ** 2)

    leaves = adapter(adapted)
    found, expected = (jax.jit(jax.grad(loss))(leaves) for loss in (through_leaves, through_kernels))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), found, expected)
    assert all(np.abs(gradient).max() > 0.01 for gradient in jax.tree.leaves(found))


def test_only_leaves_are_trainable(adapted):
    flags = flatten_dict(trainable(adapted), sep="/")
    assert set(flags) == set(flatten_dict(adapted, sep="/"))
    chosen = {path for path, flag in flags.items() if flag}
    assert chosen == {f"{m}/lora_{s}" for m in ("layers/up", "layers/down", "head") for s in "ab"}


def test_adapter_and_joined_are_opposites(adapted, base):
    assert set(flatten_dict(adapter(adapted), sep="/")) == {
        f"{m}/lora_{s}" for m in ("layers/up", "layers/down", "head") for s in "ab"
    }
    jax.tree.map(np.testing.assert_array_equal, joined(base, adapter(adapted)), adapted)
    only_head = {"head": adapter(adapted)["head"]}
    replaced = joined(adapted, only_head)
    jax.tree.map(np.testing.assert_array_equal, adapter(replaced), only_head)
    assert adapter(base) == {}


def test_dropout_is_replayed_by_its_key(adapted):
    config = LoraConfig(CONFIG.targets, CONFIG.rank, CONFIG.alpha, dropout=0.5)
    first = output(adapted, config=config, seed=0)
    np.testing.assert_array_equal(output(adapted, config=config, seed=0), first)
    assert not np.allclose(output(adapted, config=config, seed=1), first)
    assert not np.allclose(output(adapted), first)
    np.testing.assert_array_equal(output(adapted, config=config), output(adapted))
    np.testing.assert_array_equal(output(adapted, seed=0), output(adapted))


def test_dropout_is_of_the_updates_input_alone():
    params = {"kernel": 10 * jnp.eye(1000), "lora_a": jnp.eye(1000), "lora_b": jnp.eye(1000)}
    with with_lora(LoraConfig((".*",), rank=1, alpha=1.0, dropout=0.2), deterministic=False):
        x, rngs = jnp.ones((1, 1, 1000)), {"dropout": jax.random.key(0)}
        y = Dense(1000, (None, None)).apply({"params": params}, x, rngs=rngs)
    values, counts = np.unique(np.asarray(y), return_counts=True)
    np.testing.assert_allclose(values, [10, 11.25], rtol=1e-6)
    assert abs(counts[0] / 1000 - 0.2) < 0.05


def test_layers_drop_different_inputs():
    eye = jnp.tile(jnp.eye(WIDTH)[None], (LAYERS, 1, 1))

    class Wire(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x, Dense(WIDTH, (None, None), name="only")(x)

    scan = nn.scan(Wire, variable_axes={"params": 0}, split_rngs={"dropout": True}, length=LAYERS)
    params = {"only": {"kernel": 0 * eye, "lora_a": eye, "lora_b": eye}}
    config = LoraConfig(("only",), rank=1, alpha=1.0, dropout=0.5)
    with with_lora(config, deterministic=False):
        _, ys = scan().apply({"params": params}, jnp.ones_like(X), rngs={"dropout": jax.random.key(0)})
    assert not np.allclose(ys[0], ys[1])
    assert not np.allclose(ys[1], ys[2])


def test_bfloat16(adapted):
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), adapted)
    found = output(low, X.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    expected = plain(adapted)
    assert np.abs(np.float32(found) - expected).max() < 0.05 * np.abs(expected).max()
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(merged(low, CONFIG)))


def test_the_update_is_added_in_float32():
    # 256 + 1.003 is 257.003, which bfloat16 rounds to 258; with the update rounded first it is 257, rounded to 256.
    params = {"kernel": jnp.full((1, 1), 256.0), "lora_a": jnp.ones((1, 1)), "lora_b": jnp.ones((1, 1))}
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    with with_lora(LoraConfig((".*",), rank=1, alpha=1.003)):
        y = Dense(1, (None, None)).apply({"params": params}, jnp.ones((1, 1, 1), jnp.bfloat16))
    assert float(y[0, 0, 0]) == 258.0


def test_leaves_are_split_as_their_kernels(base):
    mesh = jax.make_mesh((2, 3), ("fsdp", "tensor"), devices=jax.devices()[:6])
    specs = {"up": PartitionSpec(None, "fsdp", "tensor"), "down": PartitionSpec(None, "tensor")}
    kernels = {
        name: jax.device_put(base["layers"][name]["kernel"], NamedSharding(mesh, spec)) for name, spec in specs.items()
    }
    params = {name: {"kernel": kernel} for name, kernel in kernels.items()}
    config = LoraConfig(("up", "down"), rank=2)
    abstract, real = abstract_lora(params, config), lora_params(params, config, jax.random.key(0))
    wanted = {
        "up/lora_a": PartitionSpec(None, "fsdp", None),
        "up/lora_b": PartitionSpec(None, None, "tensor"),
        "down/lora_a": PartitionSpec(None, "tensor", None),
        "down/lora_b": PartitionSpec(None, None, None),
    }
    for leaves in (flatten_dict(adapter(abstract), sep="/"), flatten_dict(adapter(real), sep="/")):
        assert {path: leaf.sharding for path, leaf in leaves.items()} == {
            path: NamedSharding(mesh, spec) for path, spec in wanted.items()
        }
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), real)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), abstract)
    traced = jax.jit(lambda p: lora_params(p, config, jax.random.key(0)))(params)
    np.testing.assert_array_equal(traced["up"]["lora_a"], real["up"]["lora_a"])


def test_sharded_equals_whole(adapted):
    mesh = jax.make_mesh((2, 3), ("fsdp", "tensor"), devices=jax.devices()[:6])
    up = NamedSharding(mesh, PartitionSpec(None, "fsdp", "tensor"))
    kernel = jax.device_put(adapted["layers"]["up"]["kernel"], up)
    layers = adapted["layers"] | {"up": adapted["layers"]["up"] | {"kernel": kernel}}
    split = jax.device_put(adapted | {"layers": layers}, NamedSharding(mesh, PartitionSpec()))
    split["layers"]["up"]["kernel"] = kernel
    np.testing.assert_allclose(output(split), output(adapted), rtol=1e-5, atol=1e-5)
    assert merged(split, CONFIG)["layers"]["up"]["kernel"].sharding.is_equivalent_to(up, 3)


def test_leaves_beside_another_modules_kernel_are_refused():
    params = lora_params({"kernel": jnp.ones((3, 2))}, LoraConfig((".*",), rank=1), jax.random.key(0))
    with with_lora(LoraConfig((".*",), rank=1)), pytest.raises(InputError, match="a Dense cannot be adapted"):
        nn.Dense(2, use_bias=False).apply({"params": params}, jnp.ones((1, 3)))


def test_leaves_are_not_added_twice(adapted):
    with pytest.raises(InputError, match="there already"):
        lora_params(adapted, CONFIG, jax.random.key(0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"targets": ()},
        {"targets": ("(",)},
        {"rank": 0},
        {"alpha": 0.0},
        {"dropout": 1.0},
        {"dropout": -0.1},
    ],
)
def test_wrong_settings(wrong):
    with pytest.raises(InputError, match=f"LoraConfig.{next(iter(wrong))}"):
        LoraConfig(**{"targets": ("up",)} | wrong)
