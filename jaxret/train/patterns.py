"""Parameters by the patterns of their paths: which are frozen, and how fast the others learn.

A pattern is a regular expression for whole leading parts of a path: "encoder/layers" is everything below it, and
".*/bias" is every bias.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxret.errors import InputError
from jaxret.nn.encoder import LAYERS

Patterns = Sequence[str]
STACK = f"encoder/{LAYERS}"
EMBEDDINGS = rf"encoder/(?!{LAYERS}/|final_norm/).*"


@flax.struct.dataclass
class PartlyState:
    """The state of `partly`.

    Attributes:
      inner: of the optimiser, with `optax.MaskedNode` in the place of frozen parameters.
      frozen: the patterns.
    """

    inner: Any
    frozen: tuple[str, ...] = flax.struct.field(pytree_node=False)


def partly(optimizer: optax.GradientTransformation, frozen: Patterns) -> optax.GradientTransformation:
    """The optimiser of all parameters but those that a pattern matches: these stay as they are, without moments.

    A global norm is then of the others' gradient.
    """
    patterns = tuple(frozen)

    def kept(tree: Any) -> Any:
        return jax.tree.map(lambda hold, x: optax.MaskedNode() if hold else x, matched(tree, patterns), tree)

    def init(params: Any) -> PartlyState:
        return PartlyState(optimizer.init(kept(params)), patterns)

    def update(gradient: Any, state: Any, params: Any = None) -> Any:
        mine = None if params is None else kept(params)
        updates, inner = optimizer.update(kept(gradient), state.inner, mine)
        # x + -0.0 is x to the last bit; 0.0 would make 0.0 of -0.0.
        whole = jax.tree.map(lambda g, u: jnp.full_like(g, -0.0) if is_hole(u) else u, gradient, updates)
        return whole, state.replace(inner=inner)

    return optax.GradientTransformation(init, update)


def held(params: Any, optimizer_state: Any) -> Any:
    """The parameters, without a gradient for those that the optimiser freezes: a step then does not compute it."""
    return jax.tree.map(lambda hold, x: lax.stop_gradient(x) if hold else x, frozen_in(params, optimizer_state), params)


def frozen_in(params: Any, optimizer_state: Any) -> Any:
    """True for each parameter that an optimiser of this state freezes."""
    patterns = [pattern for state in states_of(optimizer_state, PartlyState) for pattern in state.frozen]
    return matched(params, patterns)


def all_but(trained: Patterns) -> str:
    """The pattern of every parameter that none of these patterns matches."""
    return rf"(?!(?:{'|'.join(trained)})(?:/.*)?$).*"


def scaled(rates: Mapping[str, float], layer_decay: float | None) -> optax.GradientTransformation:
    """Multiplies updates by a factor of their parameter's.

    Args:
      rates: a factor for each pattern; the first that matches counts, 1 where none does.
      layer_decay: another factor: of `n` layers the i-th from 0 on learns by `layer_decay ** (n - i)`, embeddings by
        `layer_decay ** (n + 1)`, all else by 1 (BEiT, Bao et al. 2022). None for 1 everywhere.
    """

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        depth = _depth(updates)

        def scale(path: Any, x: jax.Array) -> jax.Array:
            name = path_name(path)
            factor = next((rate for pattern, rate in rates.items() if matches(pattern, name)), 1.0)
            x = x if factor == 1.0 else factor * x
            return x if layer_decay is None else x * _layer_factors(name, x.ndim, layer_decay, depth).astype(x.dtype)

        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def checked(optimizer: optax.GradientTransformation, patterns: Mapping[str, Patterns]) -> optax.GradientTransformation:
    """The optimiser, whose `init` makes sure that every pattern is of some parameter.

    Args:
      optimizer: the optimiser.
      patterns: by the setting that an InputError names.
    """

    def init(params: Any) -> Any:
        for setting, wanted in patterns.items():
            check_matches(params, wanted, setting)
        return optimizer.init(params)

    return optax.GradientTransformation(init, optimizer.update)


def check_matches(params: Any, patterns: Patterns, setting: str) -> None:
    """InputError for a pattern that is broken or matches no parameter, with the paths that come nearest."""
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(setting, f"{pattern!r} is broken: {error}", "Mend the pattern.") from None
        if paths and not any(matches(pattern, path) for path in paths):
            near = ", ".join(difflib.get_close_matches(pattern, paths, n=5, cutoff=0.0))
            raise InputError(setting, f"{pattern!r} matches no parameter", f"The nearest are: {near}.")


def matched(params: Any, patterns: Patterns) -> Any:
    """True for each parameter whose path one of the patterns matches."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: any(matches(pattern, path_name(path)) for pattern in patterns), params
    )


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern is of whole leading parts of a path, or of all of it."""
    return re.fullmatch(rf"(?:{pattern})(?:/.*)?", path) is not None


def path_name(path: Any) -> str:
    """A parameter's path as "encoder/layers/mlp/up/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def is_hole(x: Any) -> bool:
    """Whether it stands in the place of a frozen parameter."""
    return isinstance(x, optax.MaskedNode)


def placed(optimizer: optax.GradientTransformation, state: Any, params: Any, other: Any) -> Any:
    """What stands beside each parameter in an optimiser's state, its sharding for example.

    Args:
      optimizer: the one whose state it is.
      state: the state, perhaps abstract, perhaps with holes for frozen parameters.
      params: what to put in the place of each array that is a parameter's, in the tree of the parameters.
      other: what to put in the place of all other arrays.
    """
    return optax.tree_utils.tree_map_params(
        optimizer,
        lambda x, found: x if is_hole(x) else found,
        state,
        params,
        transform_non_params=lambda _: other,
        is_leaf=is_hole,
    )


def states_of(optimizer_state: Any, *kinds: type) -> list[Any]:
    """The parts of an optimiser's state of these kinds, each of which has an `inner`; the outer before the inner."""
    found: list[Any] = []

    def wanted(part: Any) -> bool:
        return isinstance(part, kinds)

    for part in jax.tree.leaves(optimizer_state, is_leaf=wanted):
        if wanted(part):
            found += [part, *states_of(part.inner, *kinds)]
    return found


def _depth(params: Any) -> int:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return next((len(x) for path, x in leaves if matches(STACK, path_name(path))), 0)


def _layer_factors(name: str, ndim: int, decay: float, depth: int) -> jax.Array:
    """A parameter's factors, of as many axes as it has."""
    if matches(STACK, name):
        return (decay ** jnp.arange(depth, 0, -1, dtype=jnp.float32)).reshape(depth, *[1] * (ndim - 1))
    return jnp.full([1] * ndim, decay ** (depth + 1) if matches(EMBEDDINGS, name) else 1.0, jnp.float32)
