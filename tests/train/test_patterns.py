import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxret.errors import InputError
from jaxret.runtime.mesh import device_mesh, parameter_shardings
from jaxret.train.averages import AveragedState, averaged
from jaxret.train.optimizers import adamw
from jaxret.train.patterns import all_but, held, is_hole, matches, path_name, placed, states_of
from jaxret.train.schedule_free import ScheduleFreeState

LAYERS = 3
SETTINGS = {"learning_rate": 0.1, "warmup": 0.0, "weight_decay": 0.1}
OPTIMIZERS = [adamw, functools.partial(adamw, schedule_free=True)]


def params():
    random = np.random.default_rng(0)

    def array(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    layers = {"mlp": {"kernel": array(LAYERS, 4, 2), "bias": array(LAYERS, 2)}}
    encoder = {"layers": layers, "token_embedding": array(5, 4).at[0].set(-0.0), "final_norm": {"scale": array(4)}}
    return {"encoder": encoder, "dense": {"kernel": array(4, 6)}}


def gradients():
    random = np.random.default_rng(1)
    return [jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), x.dtype), params()) for _ in range(4)]


def trained(optimizer):
    """The parameters after some steps, and the state."""
    x = params()
    state, update = optimizer.init(x), jax.jit(optimizer.update)
    for gradient in gradients():
        updates, state = update(gradient, state, x)
        x = optax.apply_updates(x, updates)
    return flat(x), state


def flat(tree):
    return {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def changes(optimizer):
    return {path: np.asarray(x) - np.asarray(flat(params())[path]) for path, x in trained(optimizer)[0].items()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_parameters_stay_to_the_last_bit_and_have_no_moments(optimizer):
    frozen = {"encoder/layers/mlp/kernel", "encoder/layers/mlp/bias", "encoder/token_embedding"}
    found, state = trained(optimizer(4, frozen=("encoder/layers", ".*/token_.*"), **SETTINGS))
    before = flat(params())
    for path, x in found.items():
        assert (np.asarray(x).tobytes() == np.asarray(before[path]).tobytes()) == (path in frozen), path
    shapes = {before[path].shape for path in frozen}
    assert not shapes & {x.shape for x in jax.tree.leaves(state)}
    whole, _ = trained(optimizer(4, frozen=("encoder/layers", ".*/token_.*"), clip=1e9, **SETTINGS))
    alone, _ = trained(optimizer(4, clip=1e9, **SETTINGS))
    for path in before.keys() - frozen:
        np.testing.assert_array_equal(whole[path], alone[path])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_norm_that_is_clipped_is_of_trained_parameters(optimizer):
    settings = SETTINGS | {"clip": 0.01}
    x = {"dense": params()["dense"]}
    state = optimizer(4, **settings).init(x)
    for gradient in gradients():
        updates, state = optimizer(4, **settings).update({"dense": gradient["dense"]}, state, x)
        x = optax.apply_updates(x, updates)
    found, _ = trained(optimizer(4, trained=("dense",), **settings))
    np.testing.assert_allclose(found["dense/kernel"], x["dense"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(found["encoder/layers/mlp/bias"], params()["encoder"]["layers"]["mlp"]["bias"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_first_rate_that_matches_counts(optimizer):
    settings = SETTINGS | {"weight_decay": 0.0}
    plain = changes(optimizer(4, **settings))
    rates = {"encoder/layers/mlp/kernel": 0.5, "encoder": 0.25, ".*": 3.0}
    found = changes(optimizer(4, learning_rates=rates, **settings))
    for path, change in found.items():
        factor = 0.5 if path == "encoder/layers/mlp/kernel" else 0.25 if path.startswith("encoder") else 3.0
        np.testing.assert_allclose(change, factor * plain[path], rtol=1e-5, atol=1e-6)


def test_layers_learn_by_their_depth():
    settings = SETTINGS | {"weight_decay": 0.0}
    plain, found = changes(adamw(4, **settings)), changes(adamw(4, layer_decay=0.5, **settings))
    factors = {"encoder/token_embedding": 0.5**4, "encoder/final_norm/scale": 1.0, "dense/kernel": 1.0}
    for path, change in found.items():
        by_layer = np.array([0.125, 0.25, 0.5]).reshape(-1, *[1] * (change.ndim - 1))
        factor = by_layer if "layers" in path else factors[path]
        np.testing.assert_allclose(change, factor * plain[path], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_decay_is_in_place_of_scales_and_biases(optimizer):
    settings = SETTINGS | {"learning_rate": 0.01, "no_decay": ("encoder/token_embedding", "dense")}
    decayed, plain = changes(optimizer(4, **settings)), changes(optimizer(4, **settings | {"weight_decay": 0.0}))
    same = {path for path in plain if np.array_equal(decayed[path], plain[path])}
    assert same == {"encoder/token_embedding", "dense/kernel"}


def test_a_pattern_is_of_whole_leading_parts():
    assert matches("encoder", "encoder/layers/mlp/kernel") and matches(".*/mlp", "encoder/layers/mlp/kernel")
    assert matches("encoder/layers/mlp/(kernel|bias)", "encoder/layers/mlp/kernel")
    assert not matches("enc", "encoder/layers") and not matches("layers", "encoder/layers")
    assert matches("a|b", "b/c") and not matches("a|b", "ab/c")
    rest = all_but(("dense", "encoder/layers"))
    assert [matches(rest, path) for path in ("dense", "dense/kernel", "dense_2/kernel", "encoder/layers/x")] == [
        False,
        False,
        True,
        False,
    ]
    assert matches(rest, "encoder/final_norm/scale")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"frozen": ("encoder/layer",)},
            r"adamw.frozen: 'encoder/layer' matches no parameter. The nearest are: encoder/layers/mlp/",
        ),
        ({"trained": ("heads",)}, "adamw.trained: 'heads' matches no parameter"),
        ({"learning_rates": {"dens": 2.0}}, r"adamw.learning_rates: 'dens' .*: dense/kernel"),
        ({"no_decay": (".*/weight",)}, "adamw.no_decay: '.*/weight' matches no"),
        ({"frozen": ("(",)}, r"'\(' is broken"),
        ({"layer_decay": 0.0}, "adamw.layer_decay: 0.0 is no factor"),
    ],
)
def test_patterns_that_match_nothing(settings, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(adamw(4, **SETTINGS, **settings).init, params())


def test_layer_decay_needs_layers():
    with pytest.raises(InputError, match=r"adamw.layer_decay: 'encoder/layers' matches no parameter"):
        adamw(4, layer_decay=0.9, **SETTINGS).init({"dense": params()["dense"]})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_held_parameters_have_no_gradient(optimizer):
    state = optimizer(4, frozen=("encoder",), **SETTINGS).init(params())

    def loss(x, state):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(held(x, state)))

    found = flat(jax.grad(loss)(params(), state))
    assert {path for path, x in found.items() if np.any(x)} == {"dense/kernel"}
    free = optimizer(4, **SETTINGS).init(params())
    assert all(np.any(x) for x in jax.tree.leaves(jax.grad(loss)(params(), free)))


FROZEN = {"frozen": ("encoder/layers/mlp", "lexical"), **SETTINGS}


@pytest.mark.parametrize(
    ("optimizer", "own", "moments"),
    [
        (averaged(4, optimizer=functools.partial(adamw, **FROZEN), decay=0.9), "average", ("mu", "nu")),
        (adamw(4, schedule_free=True, **FROZEN), "z", ("nu",)),
    ],
    ids=["averaged", "schedule_free"],
)
def test_state_lies_where_its_parameters_lie(optimizer, own, moments, model):
    shardings = parameter_shardings(jax.eval_shape(lambda: model.boxed(0)), device_mesh((2, 2, 2)))
    state = jax.eval_shape(optimizer.init, model.abstract_params())
    found = placed(optimizer, state, shardings, "everywhere")
    assert jax.tree.structure(found) == jax.tree.structure(state)
    (outer,) = states_of(found, AveragedState, ScheduleFreeState)
    for tree in (getattr(outer, own), *(optax.tree_utils.tree_get(found, name) for name in moments)):
        places = jax.tree.map(lambda s, x: is_hole(x) or x == s, shardings, tree)
        assert all(jax.tree.leaves(places)) and not is_hole(tree["encoder"]["token_embedding"])
        assert is_hole(tree["encoder"]["layers"]["mlp"]["up"]["kernel"])
    assert {x for x in jax.tree.leaves(found) if isinstance(x, str)} == {"everywhere"}
