"""Which implementation of normalisation runs where: a kernel that reads each state once on TPUs, or the plain one."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from jaxret.nn.layers import plain_normalization
from jaxret.runtime.mesh import BATCH

LANES, SUBLANES = 128, 16
BLOCK_BYTES = 2**20  # of float32 states


def normalization(kind: str, x: Array, scale: Array, bias: Array | None, epsilon: float) -> Array:
    """As `plain_normalization`; a TPU runs the kernel on bfloat16 where rows and width fill its tiles."""
    plain = functools.partial(plain_normalization, kind, epsilon=epsilon)
    axes = _axes(x)
    if x.dtype != jnp.bfloat16 or not _block(math.prod(x.shape[:-1]) // _parts(axes), x.shape[-1]):
        return plain(x, scale, bias)
    kernel = functools.partial(kernel_norm, kind=kind, epsilon=epsilon)

    def local(x: Array, *parameters: Array | None) -> Array:
        return lax.platform_dependent(x, *parameters, tpu=kernel, default=plain)

    if axes is None:
        return local(x, scale, bias)
    mesh, rows, whole = jax.sharding.get_abstract_mesh(), PartitionSpec(axes), PartitionSpec()
    free = set(mesh.axis_names) - set(mesh.manual_axes)
    over_devices = jax.shard_map(
        local, mesh=mesh, in_specs=(rows, whole, whole), out_specs=rows, axis_names=free, check_vma=False
    )
    return over_devices(x, scale, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def kernel_norm(
    x: Float[Array, "*n d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"] | None,
    kind: str,
    epsilon: float,
    interpret: bool = False,
) -> Float[Array, "*n d"]:
    """`layer_norm` or `rms_norm`; `interpret` runs it anywhere, slowly."""
    rows = (scale,) if bias is None else (scale, bias)
    kernel = functools.partial(_forward_kernel, kind=kind, epsilon=epsilon)
    (y,) = _run(kernel, (x,), rows, 1, 0, interpret)
    return y


def _forward(x, scale, bias, kind, epsilon, interpret):
    return kernel_norm(x, scale, bias, kind, epsilon, interpret), (x, scale, bias)


def _backward(kind, epsilon, interpret, residuals, g):
    x, scale, bias = residuals
    kernel = functools.partial(_backward_kernel, kind=kind, epsilon=epsilon)
    dx, dscale, dbias = _run(kernel, (x, g), (scale,), 1, 2, interpret)
    return dx, dscale[0].astype(scale.dtype), None if bias is None else dbias[0].astype(bias.dtype)


kernel_norm.defvjp(_forward, _backward)


def _run(kernel: Any, arrays: tuple, rows: tuple, outputs: int, sums: int, interpret: bool) -> Any:
    """A kernel over blocks of rows of `arrays`, which sees all of `rows`; sums are added up from block to block."""
    shape = arrays[0].shape
    n, d = math.prod(shape[:-1]), shape[-1]
    block = pl.BlockSpec((_block(n, d), d), lambda i: (i, 0))
    whole = pl.BlockSpec((1, d), lambda i: (0, 0))
    found = pl.pallas_call(
        kernel,
        grid=(n // _block(n, d),),
        in_specs=[block] * len(arrays) + [whole] * len(rows),
        out_specs=[block] * outputs + [whole] * sums,
        out_shape=[jax.ShapeDtypeStruct((n, d), arrays[0].dtype)] * outputs
        + [jax.ShapeDtypeStruct((1, d), jnp.float32)] * sums,
        interpret=interpret,
    )(*(x.reshape(n, d) for x in arrays), *(row[None].astype(jnp.float32) for row in rows))
    return [*(x.reshape(shape) for x in found[:outputs]), *found[outputs:]]


def _standard(x: Array, kind: str, epsilon: float) -> tuple[Array, Array]:
    """Rows of mean 0 and deviation 1, and their inverse deviations."""
    y = x.astype(jnp.float32)
    if kind == "layer":
        y = y - jnp.mean(y, axis=1, keepdims=True)
    deviation = lax.rsqrt(jnp.mean(jnp.square(y), axis=1, keepdims=True) + epsilon)
    return y * deviation, deviation


def _forward_kernel(x: Any, scale: Any, *rest: Any, kind: str, epsilon: float) -> None:
    *bias, out = rest
    y = _standard(x[...], kind, epsilon)[0] * scale[...]
    for row in bias:
        y = y + row[...]
    out[...] = y.astype(out.dtype)


def _backward_kernel(
    x: Any, g: Any, scale: Any, dx: Any, dscale: Any, dbias: Any, *, kind: str, epsilon: float
) -> None:
    y, deviation = _standard(x[...], kind, epsilon)
    cotangent = g[...].astype(jnp.float32)
    inner = cotangent * scale[...]
    change = inner - y * jnp.mean(inner * y, axis=1, keepdims=True)
    if kind == "layer":
        change = change - jnp.mean(inner, axis=1, keepdims=True)
    dx[...] = (change * deviation).astype(dx.dtype)

    @pl.when(pl.program_id(0) == 0)
    def _() -> None:
        dscale[...] = jnp.zeros_like(dscale)
        dbias[...] = jnp.zeros_like(dbias)

    dscale[...] += jnp.sum(cotangent * y, axis=0, keepdims=True)
    dbias[...] += jnp.sum(cotangent, axis=0, keepdims=True)


def _block(rows: int, width: int) -> int:
    """Rows of a block; 0 where they do not fill tiles."""
    if rows % SUBLANES or width % LANES:
        return 0
    most = max(1, BLOCK_BYTES // (4 * width * SUBLANES))
    return SUBLANES * max(n for n in range(1, most + 1) if rows // SUBLANES % n == 0)


def _axes(x: Array) -> tuple[str, ...] | None:
    """The axes over which the rows of `x` are split; None where a trace is of one device, or of its part."""
    mesh = jax.sharding.get_abstract_mesh()
    free = [axis for axis in mesh.axis_names if axis not in mesh.manual_axes]
    if all(mesh.shape[axis] == 1 for axis in free):
        return None
    axes = tuple(axis for axis in BATCH if axis in free)
    return axes if x.shape[0] % _parts(axes) == 0 else ()


def _parts(axes: tuple[str, ...] | None) -> int:
    return math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in axes or ())
