"""LoRA as a transform of parameters: leaves beside the kernels, and an interceptor that adds their products."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from jaxret.errors import InputError
from jaxret.nn.dropout import dropped
from jaxret.nn.layers import Dense
from jaxret.ops.products import dense_product

KERNEL, A, B = "kernel", "lora_a", "lora_b"
_DROPS: ContextVar[bool] = ContextVar("drops", default=False)


@dataclass(frozen=True)
class LoraConfig:
    """Which kernels are adapted and how (Hu et al. 2022, section 4.1).

    Attributes:
      targets: regular expressions for whole trailing parts of a kernel's path, such as "attention/(query|value)" for
        "encoder/layers/attention/query/kernel".
      rank: width of the bottleneck.
      alpha: the update is multiplied by `alpha / rank`.
      dropout: of the update's input, in training.
    """

    targets: tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self):
        checks = {
            "targets": (bool(self.targets) and not isinstance(self.targets, str), "a tuple of regular expressions"),
            "rank": (self.rank >= 1, "a whole number from 1"),
            "alpha": (self.alpha > 0, "a number above 0"),
            "dropout": (0 <= self.dropout < 1, "a number from 0 to below 1"),
        }
        for name, (good, wanted) in checks.items():
            if not good:
                raise InputError(f"LoraConfig.{name}", f"{getattr(self, name)!r} cannot be", f"Give {wanted}.")
        for pattern in self.targets:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError("LoraConfig.targets", f"{pattern!r} is broken: {error}", "Mend the pattern.") from None

    @property
    def scale(self) -> float:
        """What the update is multiplied by."""
        return self.alpha / self.rank


def lora_params(params: Any, config: LoraConfig, key: jax.Array) -> Any:
    """The parameters with fresh float32 leaves beside each matched kernel `[.. in out]`; changes no output yet.

    `lora_a [.. in r]` is uniform within `1 / sqrt(in)`, as PEFT has it (Kaiming, a = sqrt(5)); `lora_b [.. r out]` is
    zero. Traceable. Leaves of arrays with a NamedSharding are placed as `abstract_lora` says.

    Raises:
      InputError: a target matches no kernel, or there are leaves already.
    """
    flat = _flat(params)
    for path, leaf in _flat(adapter(abstract_lora(params, config))).items():
        flat[path] = jnp.zeros(leaf.shape, leaf.dtype)
        if path.endswith(A):
            own_key = jax.random.fold_in(key, zlib.crc32(path.encode()))
            bound = leaf.shape[-2] ** -0.5
            flat[path] = jax.random.uniform(own_key, leaf.shape, leaf.dtype, -bound, bound)
        if leaf.sharding is not None:
            flat[path] = jax.device_put(flat[path], leaf.sharding)
    return unflatten_dict(flat, sep="/")


def abstract_lora(params: Any, config: LoraConfig) -> Any:
    """The parameters with the shapes, dtypes and shardings of the leaves that `lora_params` adds.

    A leaf is split as its kernel is: `lora_a` over the kernel's input axis, `lora_b` over its output axis.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s.
      config: what to adapt.

    Raises:
      InputError: a target matches no kernel, or there are leaves already.
    """
    flat = _flat(params)
    for path in _matched(flat, config.targets):
        kernel, stem = flat[path], path.removesuffix(KERNEL)
        *stack, inputs, outputs = kernel.shape
        if stem + A in flat:
            raise InputError(f"parameter {stem}{A}", "there already", "Merge the adapter first, or leave it out.")
        to_a, to_b = _shardings(kernel)
        flat[stem + A] = jax.ShapeDtypeStruct((*stack, inputs, config.rank), jnp.float32, sharding=to_a)
        flat[stem + B] = jax.ShapeDtypeStruct((*stack, config.rank, outputs), jnp.float32, sharding=to_b)
    return unflatten_dict(flat, sep="/")


@contextmanager
def with_lora(config: LoraConfig, *, deterministic: bool = True) -> Iterator[None]:
    """Inside it, every `Dense` whose scope holds leaves adds `alpha/r * dropout(x) @ lora_a @ lora_b`.

    Enter it inside the function that is traced: JAX's caches of traced functions do not know of it.

    Args:
      config: the one that the leaves were made with.
      deterministic: no dropout; otherwise there is, where a module is called with a key named "dropout".

    Raises:
      InputError: (when a module is called) leaves beside a kernel that is not a `Dense`'s.
    """

    def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        held = context.method_name == "__call__" and module.scope is not None and module.has_variable("params", A)
        if not held:
            return call(*args, **kwargs)
        if not isinstance(module, Dense):
            name, kind = "/".join(module.path), type(module).__name__
            raise InputError(f"parameter {name}/{A}", f"a {kind} cannot be adapted", "Target kernels of Dense alone.")
        y, (x,) = call(*args, **kwargs), args or kwargs.values()
        if config.dropout and not deterministic and module.has_rng("dropout"):
            x = dropped(x, config.dropout, module.make_rng("dropout"))
        update = _update(x, module.get_variable("params", A), module.get_variable("params", B))
        return (y.astype(jnp.float32) + config.scale * update).astype(y.dtype)

    token = _DROPS.set(bool(config.dropout) and not deterministic)
    try:
        with nn.intercept_methods(interceptor):
            yield
    finally:
        _DROPS.reset(token)


def drops() -> bool:
    """Whether updates lose elements here, inside `with_lora`, where a module is called with a key."""
    return _DROPS.get()


def merged(params: Any, config: LoraConfig) -> Any:
    """The parameters without leaves: each adapted kernel is `kernel + alpha/r * lora_a @ lora_b`, in its own dtype."""
    return merged_at(params, config.scale)


def merged_at(params: Any, scale: float | Float[Array, ""]) -> Any:
    """`merged`, for a scale that may be an array."""
    flat = _flat(params)
    for path in [path for path in flat if path.rpartition("/")[2] == A]:
        stem = path.removesuffix(A)
        a, b = (flat.pop(stem + name).astype(jnp.float32) for name in (A, B))
        kernel = flat[stem + KERNEL]
        update = jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
        flat[stem + KERNEL] = (kernel.astype(jnp.float32) + scale * update).astype(kernel.dtype)
    return unflatten_dict(flat, sep="/")


def adapter(params: Any) -> Any:
    """The leaves alone, in the same tree."""
    return unflatten_dict({path: x for path, x in _flat(params).items() if _is_leaf(path)}, sep="/")


def joined(params: Any, leaves: Any) -> Any:
    """The parameters with the leaves of an adapter in place of those they may hold; the opposite of `adapter`."""
    rest = {path: x for path, x in _flat(params).items() if not _is_leaf(path)}
    return unflatten_dict(rest | _flat(leaves), sep="/")


def trainable(params: Any) -> Any:
    """True for leaves, False for all else, in the tree of the parameters; for `optax.masked` and the like."""
    return jax.tree_util.tree_map_with_path(lambda path, x: path[-1].key in (A, B), params)


def _flat(params: Any) -> dict[str, Any]:
    return flatten_dict(params, keep_empty_nodes=True, sep="/")


def _is_leaf(path: str) -> bool:
    return path.rpartition("/")[2] in (A, B)


def _matched(flat: dict[str, Any], targets: tuple[str, ...]) -> list[str]:
    kernels = [path for path in flat if path.rpartition("/")[2] == KERNEL]
    found = set()
    for target in targets:
        hits = {path for path in kernels if re.fullmatch(rf"(?:.*/)?(?:{target})(?:/{KERNEL})?", path)}
        if not hits:
            fix = f"The kernels are: {', '.join(kernels) or 'none'}."
            raise InputError("LoraConfig.targets", f"{target!r} matches no kernel", fix)
        found |= hits
    return sorted(found)


def _shardings(kernel: Any) -> tuple[NamedSharding | None, NamedSharding | None]:
    sharding = None if isinstance(kernel, jax.core.Tracer) else getattr(kernel, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return None, None
    spec: list[Any] = [*sharding.spec, *[None] * (len(kernel.shape) - len(sharding.spec))]
    *stack, inputs, outputs = spec
    return (
        NamedSharding(sharding.mesh, PartitionSpec(*stack, inputs, None)),
        NamedSharding(sharding.mesh, PartitionSpec(*stack, None, outputs)),
    )


def _update(x: Float[Array, "*n d"], a: Float[Array, "d r"], b: Float[Array, "r f"]) -> Float[Array, "*n f"]:
    product = dense_product(x.reshape(-1, *x.shape[-2:]), a.astype(x.dtype))
    product = dense_product(product, b.astype(x.dtype)).astype(jnp.float32)
    return product.reshape(*x.shape[:-1], b.shape[-1])
