"""The mesh and the one table that maps logical axis names to it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import flax.linen as nn
import jax
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxret.errors import InputError
from jaxret.nn.placement import Axes, placement

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")
RULES = (
    ("vocab", "tensor"),
    ("width", "fsdp"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("projection", None),
    ("norm", None),
    ("layers", None),
    ("languages", None),
    ("memories", BATCH),
)


def device_mesh(shape: Sequence[int] = (-1, 1, 1), devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with axes `data, fsdp, tensor` over all devices; one size may be -1, the rest of the devices.

    Raises:
      InputError: the shape does not use every device exactly once.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = tuple(shape)
    fix = f"Give {len(AXES)} sizes for {', '.join(AXES)} with product {len(devices)}; one may be -1."
    if len(shape) != len(AXES) or shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
        raise InputError("mesh_shape", f"{shape} is not a mesh", fix)
    known = math.prod(n for n in shape if n != -1)
    sizes = tuple(len(devices) // known if n == -1 else n for n in shape)
    if math.prod(sizes) != len(devices):
        raise InputError("mesh_shape", f"{shape} does not fit {len(devices)} devices", fix)
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def own_mesh(mesh: Mesh) -> Mesh:
    """The mesh, or where others' devices are among its, one of this process's devices alone."""
    if not mesh.is_multi_process:
        return mesh
    return device_mesh(devices=[each for each in mesh.devices.flat if each.process_index == jax.process_index()])


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows split over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


@contextmanager
def traced_on(mesh: Mesh) -> Iterator[None]:
    """What a function that is compiled for a mesh is traced in: it finds the mesh, and layers their kernels."""
    pieces = mesh.shape["fsdp"] > 1
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), placement(gathered) if pieces else nullcontext():
        yield


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gathered(kernel: jax.Array, axes: Axes) -> jax.Array:
    """A kernel with the pieces that lie over `fsdp` put together, for one product; its gradient is cut up again.

    Left to itself the partitioner sends the pieces round and multiplies by one at a time, a product as narrow as a
    piece.
    """
    return _constrained(kernel, axes, without="fsdp")


def _gathered_forward(kernel: jax.Array, axes: Axes) -> tuple[jax.Array, None]:
    return gathered(kernel, axes), None


def _gathered_backward(axes: Axes, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (_constrained(_constrained(gradient, axes, without="fsdp"), axes),)


gathered.defvjp(_gathered_forward, _gathered_backward)


def _constrained(x: jax.Array, axes: Axes, without: str = "") -> jax.Array:
    mesh, rules = jax.sharding.get_abstract_mesh(), dict(RULES)
    if mesh.empty or mesh.manual_axes or mesh.shape["fsdp"] == 1:
        return x
    places = [rules[axis] if axis else None for axis in axes]
    for number, (place, size) in enumerate(zip(places, x.shape, strict=True)):
        if place == without or (isinstance(place, str) and size % mesh.shape[place]):
            places[number] = None
    return lax.with_sharding_constraint(x, PartitionSpec(*places))


def all_pairs(score: Callable[[Any, Any], Any], q: Any, d: Any) -> Any:
    """`score(q, d)`: each device takes its own rows of `q` against all rows of `d`, which are gathered once.

    Left to itself the partitioner adds up each document's gradient over the devices inside MaxSim's loop over
    documents. Here one reduce-scatter after the loop does it. Outside `jitted_step` it is plain `score(q, d)`.

    Args:
      score: pytrees with `b` and `c` rows to arrays with `b` rows.
      q, d: split over the mesh as batches are.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or all(mesh.shape[axis] == 1 for axis in BATCH):
        return score(q, d)

    def local(q: Any, d: Any) -> Any:
        return score(q, jax.tree.map(lambda x: lax.all_gather(x, BATCH, tiled=True), d))

    rows = PartitionSpec(BATCH)
    return jax.shard_map(
        local, mesh=mesh, in_specs=(rows, rows), out_specs=rows, axis_names=set(BATCH), check_vma=False
    )(q, d)


def parameter_shardings(boxed: Any, mesh: Mesh) -> Any:
    """A sharding for each parameter from its logical axis names; an array without such names is on every device.

    A vocabulary is as large as its tokeniser says: 2 times an odd number for XLM-R, odd for RoBERTa and Qwen3. Where it
    does not divide over `tensor`, it stays whole and the table's width is split over `fsdp` and `tensor` instead, so
    that a chip holds as little as before; only a language model's head then gathers the whole table.

    Args:
      boxed: abstract variables with their logical axes, as `jax.eval_shape(module.init, ...)` gives them.
      mesh: where they go.

    Raises:
      InputError: an axis has no rule, or another size does not divide over the mesh.
    """

    def sharding(path: tuple, box: Any) -> NamedSharding:
        if not isinstance(box, nn.LogicallyPartitioned):
            return NamedSharding(mesh, PartitionSpec())
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, PartitionSpec(*_places(name, box.names, box.value.shape, mesh.shape)))

    return jax.tree_util.tree_map_with_path(sharding, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


def _places(name: str, axes: Sequence[str | None], shape: Sequence[int], devices: Mapping[str, int]) -> list[Any]:
    """Over what each axis of a parameter is split."""
    rules, places = dict(RULES), list[Any]()
    for axis, size in zip(axes, shape, strict=True):
        if axis is not None and axis not in rules:
            raise InputError(f"parameter {name}", f"no rule for logical axis {axis!r}", "Add it to runtime/mesh.py.")
        place = rules.get(axis) if axis else None
        count = math.prod(devices[name] for name in ((place,) if isinstance(place, str) else place or ()))
        if size % count:
            if axis != "vocab":
                problem = f"axis {axis!r} of size {size} does not divide over {count} devices of {place!r}"
                raise InputError(f"parameter {name}", problem, "Choose another mesh_shape or size.")
            place = None
        places.append(place)
    if "vocab" in axes and places[axes.index("vocab")] is None and "width" in axes:
        width = axes.index("width")
        if shape[width] % (devices["fsdp"] * devices["tensor"]) == 0:
            places[width] = ("fsdp", "tensor")
    return places
