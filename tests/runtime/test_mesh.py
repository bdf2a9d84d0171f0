import dataclasses
from itertools import combinations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.errors import InputError
from jaxret.nn.config import EncoderConfig
from jaxret.nn.heads import LMHeadConfig
from jaxret.nn.retriever import Retriever, RetrieverConfig
from jaxret.ops.maxsim import maxsim
from jaxret.runtime.mesh import AXES, BATCH, RULES, all_pairs, batch_sharding, device_mesh, parameter_shardings

HEADS = ("dense", "lexical", "multi_vector")
SIZES = EncoderConfig(vocab_size=64, width=16, num_heads=4, mlp_width=32)
CONFIG = RetrieverConfig(SIZES, dense_layers=(8,), token_layers=(8,))


def boxed(config):
    ids = jnp.ones((1, 8), jnp.int32)
    return jax.eval_shape(lambda: Retriever(config).init(jax.random.key(0), ids, "query")["params"])


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [((-1, 1, 1), (8, 1, 1)), ((2, -1, 2), (2, 2, 2)), ((1, 4, 2), (1, 4, 2)), ([1, 1, -1], (1, 1, 8))],
)
def test_a_mesh_uses_every_device_once(shape, sizes):
    mesh = device_mesh(shape)
    assert tuple(mesh.shape.values()) == sizes
    assert mesh.axis_names == AXES
    assert {d.id for d in mesh.devices.flat} == {d.id for d in jax.devices()}


def test_a_mesh_over_some_devices():
    assert set(device_mesh((-1, 1, 1), jax.devices()[:2]).devices.flat) == set(jax.devices()[:2])


@pytest.mark.parametrize(
    "shape", [(3, 1, 1), (16, 1, 1), (-1, 3, 1), (-1, -1, 1), (0, 8, 1), (8,), (2, 2, 2, 1), (-2, 1, 4)]
)
def test_a_misfit_is_an_input_error(shape):
    with pytest.raises(InputError, match=r"^mesh_shape: .*product 8"):
        device_mesh(shape)


@pytest.mark.parametrize("heads", [heads for n in (1, 2, 3) for heads in combinations(HEADS, n)])
def test_every_logical_axis_has_a_rule(heads):
    tree = boxed(dataclasses.replace(CONFIG, heads=heads))
    boxes = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
    assert all(isinstance(box, nn.LogicallyPartitioned) for box in boxes), "a parameter without logical axes"
    for box in boxes:
        assert len(box.names) == box.value.ndim
        assert set(box.names) - {None} <= set(dict(RULES))
        places = [place for name in box.names if (place := dict(RULES).get(name))]
        assert len(places) == len(set(places)), f"{box.names} collide on the mesh"
    parameter_shardings(tree, device_mesh((2, 2, 2)))


def test_parameters_follow_the_rules():
    shardings = parameter_shardings(boxed(CONFIG), device_mesh((2, 2, 2)))
    assert shardings["encoder"]["token_embedding"].spec == PartitionSpec("tensor", "fsdp")
    assert shardings["encoder"]["layers"]["attention"]["query"]["kernel"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert shardings["encoder"]["layers"]["mlp"]["down"]["kernel"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert shardings["lexical"]["weight"]["bias"].spec == PartitionSpec(None)


def test_a_size_that_does_not_divide_is_an_input_error():
    config = dataclasses.replace(CONFIG, encoder=dataclasses.replace(SIZES, mlp_width=33))
    with pytest.raises(
        InputError, match=r"parameter encoder/layers/mlp/\w+/kernel: axis 'mlp' of size 33 .* 2 devices of 'tensor'"
    ):
        parameter_shardings(boxed(config), device_mesh((4, 1, 2)))
    parameter_shardings(boxed(config), device_mesh((4, 2, 1)))


@pytest.mark.parametrize(
    ("shape", "table"),
    [
        ((4, 1, 2), PartitionSpec(None, ("fsdp", "tensor"))),
        ((2, 2, 2), PartitionSpec(None, ("fsdp", "tensor"))),
        ((1, 8, 1), PartitionSpec("tensor", "fsdp")),
    ],
)
def test_a_vocabulary_that_does_not_divide_leaves_its_place_to_the_width(shape, table):
    encoder = dataclasses.replace(SIZES, vocab_size=63)
    config = dataclasses.replace(CONFIG, encoder=encoder, heads=("lexical",), lm_head=LMHeadConfig(tied=False))
    shardings = parameter_shardings(boxed(config), device_mesh(shape))
    assert shardings["encoder"]["token_embedding"].spec == table
    assert shardings["lm_head"]["decoder"].spec == table
    assert shardings["lm_head"]["bias"].spec == PartitionSpec("tensor" if shape[2] == 1 else None)
    assert shardings["encoder"]["layers"]["mlp"]["down"]["kernel"].spec == PartitionSpec(None, "tensor", "fsdp")


def test_a_table_that_divides_in_neither_way_stays_whole_over_tensor():
    encoder = dataclasses.replace(SIZES, vocab_size=63, width=10, num_heads=5)
    config = dataclasses.replace(CONFIG, encoder=dataclasses.replace(encoder, mlp_width=16), heads=("dense",))
    shardings = parameter_shardings(boxed(config), device_mesh((2, 2, 2)))
    assert shardings["encoder"]["token_embedding"].spec == PartitionSpec(None, "fsdp")


def test_an_axis_without_a_rule_is_an_input_error():
    box = nn.LogicallyPartitioned(jax.ShapeDtypeStruct((4,), jnp.float32), names=("wdith",))
    with pytest.raises(InputError, match=r"parameter head/scale: no rule for logical axis 'wdith'"):
        parameter_shardings({"head": {"scale": box}}, device_mesh())


def example():
    random = np.random.default_rng(0)
    q, d = (jnp.asarray(random.normal(size=(n, length, 4)), jnp.float32) for n, length in ((8, 3), (16, 5)))
    weight = jnp.asarray(random.normal(size=(8, 16)), jnp.float32)
    return (q, jnp.asarray(random.random((8, 3)) < 0.8)), (d, jnp.asarray(random.random((16, 5)) < 0.8)), weight


def value_and_gradients(mesh):
    (q, q_mask), (d, d_mask), weight = example()

    def score(q, d):
        return maxsim(q[0], d[0], q[1], d[1])

    def loss(q, d):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jnp.sum(weight * all_pairs(score, (q, q_mask), (d, d_mask)))

    rows = batch_sharding(mesh)
    program = jax.jit(
        jax.value_and_grad(loss, argnums=(0, 1)), in_shardings=(rows, rows), out_shardings=(None, (rows, rows))
    )
    return program.lower(q, d).compile(), (jax.device_put(q, rows), jax.device_put(d, rows))


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 4, 2), (1, 1, 8)])
def test_all_pairs_on_a_mesh_equal_all_pairs_on_one_device(shape):
    single, inputs = value_and_gradients(device_mesh((1, 1, 1), jax.devices()[:1]))
    expected = single(*inputs)
    program, inputs = value_and_gradients(device_mesh(shape))
    for ours, theirs in zip(jax.tree.leaves(program(*inputs)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_all_pairs_gather_documents_once_and_scatter_their_gradient_once():
    text = value_and_gradients(device_mesh())[0].as_text()
    calls = {name: text.count(f" {name}(") for name in ("reduce-scatter", "all-to-all", "collective-permute")}
    assert calls == {"reduce-scatter": 1, "all-to-all": 0, "collective-permute": 0}
    sums = [line for line in text.splitlines() if " all-reduce(" in line]
    assert [line.split("=")[1].split()[0] for line in sums] == ["f32[]"], "only the loss itself is summed over devices"


def test_all_pairs_without_a_mesh_is_the_plain_score():
    assert all_pairs(lambda q, d: q + d, 1, 2) == 3


def test_a_batch_is_split_over_data_and_fsdp():
    sharding = batch_sharding(device_mesh((2, 2, 2)))
    assert isinstance(sharding, NamedSharding)
    assert sharding.spec == PartitionSpec(BATCH)
    rows = jax.device_put(np.arange(8), sharding)
    assert {shard.data.shape for shard in rows.addressable_shards} == {(2,)}
