"""Attention for TPUs over texts of up to 512 tokens: a row's scores never leave the chip's fast memory.

A head of 64 fills half of a product's 128 lanes, so two of them are taken at once where they lie, side by side, and one
is blanked out: nothing is transposed on the way to the heads and back.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Int

from jaxret.errors import InputError

LANES = 128
LONGEST = 512
UNROLLED = 256  # up to this length the registers suffice for all heads of a block at once
BLOCK_BYTES = 6 * 2**20  # of inputs and outputs, twice as they are fetched ahead
_LOWEST = float(jnp.finfo(jnp.float32).min)
_dot = functools.partial(lax.dot_general, preferred_element_type=jnp.float32)
_ROWS_BY_ROWS = (((1,), (1,)), ((), ()))  # x y^T
_PRODUCT = (((1,), (0,)), ((), ()))  # x y
_COLUMNS_BY_COLUMNS = (((0,), (0,)), ((), ()))  # x^T y


def unfit(q: jax.Array, k: jax.Array, mask: jax.Array, *, causal: bool = False, window: int = 0) -> str:
    """Why `short_attention` does not take these shapes; "" where it does."""
    _, heads, length, width = q.shape
    if causal or window or mask.ndim != 2:
        return "every token attends to every other"
    if k.shape[1] != heads:
        return "every head has keys of its own"
    if length > LONGEST:
        return f"texts have at most {LONGEST} tokens"
    if LANES % width or heads * width % LANES:
        return f"heads fill {LANES} lanes"
    return ""


def short_attention(
    q: Float[Array, "b h l w"],
    k: Float[Array, "b h l w"],
    v: Float[Array, "b h l w"],
    mask: Bool[Array, "b l"],
    *,
    causal: bool = False,
    window: int = 0,
    interpret: bool = False,
) -> Float[Array, "b h l w"]:
    """As `plain_attention`; the backward pass computes the scores again. `interpret` runs it anywhere, slowly.

    Raises:
      InputError: it is not for such shapes, see `unfit`.
    """
    if problem := unfit(q, k, mask, causal=causal, window=window):
        raise InputError("attention", f'"short" is for models where {problem}', 'Choose "auto" or "plain".')
    b, heads, length, width = q.shape
    padding = -length % LANES

    def flat(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, 1, 2).reshape(b, length, heads * width)
        return jnp.pad(x, ((0, 0), (0, padding), (0, 0)))

    kept = jnp.pad(mask, ((0, 0), (0, padding))).astype(jnp.int32)
    if padding:  # a row without keys shares among its own alone
        inside = jnp.arange(length + padding) < length
        kept = jnp.where(mask.any(axis=1)[:, None], kept, inside[None].astype(jnp.int32))
    mixed = _attended(flat(q), flat(k), flat(v), kept, width, interpret)[:, :length]
    return jnp.moveaxis(mixed.reshape(b, length, heads, width), 2, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attended(q: Array, k: Array, v: Array, kept: Int[Array, "b l"], width: int, interpret: bool) -> Array:
    (mixed,) = _run(_forward_kernel, (q, k, v), kept[:, None, :], 1, width, interpret)
    return mixed


def _forward(q: Array, k: Array, v: Array, kept: Array, width: int, interpret: bool) -> Any:
    return _attended(q, k, v, kept, width, interpret), (q, k, v, kept)


def _backward(width: int, interpret: bool, residuals: Any, g: Array) -> Any:
    q, k, v, kept = residuals
    arrays = q, k, v, g.astype(q.dtype)
    return *_run(_backward_kernel, arrays, kept[:, :, None], 3, width, interpret), None


_attended.defvjp(_forward, _backward)


def _run(kernel: Any, arrays: tuple, kept: Array, outputs: int, width: int, interpret: bool) -> Any:
    """A kernel over rows and blocks of heads."""
    rows, length, lanes = arrays[0].shape
    each = 2 * (len(arrays) + outputs) * length * LANES * arrays[0].dtype.itemsize
    groups = lanes // LANES
    taken = max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * each <= BLOCK_BYTES))
    block = pl.BlockSpec((1, length, taken * LANES), lambda row, group: (row, 0, group))
    whole = pl.BlockSpec((1, *kept.shape[1:]), lambda row, group: (row, 0, 0))
    return pl.pallas_call(
        functools.partial(kernel, width=width),
        grid=(rows, groups // taken),
        in_specs=[whole] + [block] * len(arrays),
        out_specs=[block] * outputs,
        out_shape=[jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype)] * outputs,
        interpret=interpret,
    )(kept, *arrays)


def _for_each_group(lanes: int, length: int, body: Any) -> None:
    """Calls `body` with the slice of 128 lanes of each group of heads."""

    def step(number: Array, _: Array) -> Array:
        body(pl.ds(pl.multiple_of(number * LANES, LANES), LANES))
        return _

    lax.fori_loop(0, lanes // LANES, step, jnp.int32(0), unroll=length <= UNROLLED)


def _forward_kernel(kept: Any, q: Any, k: Any, v: Any, mixed: Any, *, width: int) -> None:
    allowed = kept[0] != 0  # [1 l]: the keys lie along the lanes

    def group(lanes: Any) -> None:
        queries, keys, values = q[0, :, lanes], k[0, :, lanes], v[0, :, lanes]
        head = lax.broadcasted_iota(jnp.int32, queries.shape, 1) // width
        result = jnp.zeros(queries.shape, jnp.float32)
        for number in range(LANES // width):
            scores = _dot(jnp.where(head == number, queries, 0), keys, _ROWS_BY_ROWS) * width**-0.5
            scores = jnp.where(allowed, scores, _LOWEST)
            weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
            total = jnp.sum(weights, axis=1, keepdims=True)
            result = jnp.where(head == number, _dot(weights.astype(values.dtype), values, _PRODUCT) / total, result)
        mixed[0, :, lanes] = result.astype(mixed.dtype)

    _for_each_group(q.shape[2], q.shape[1], group)


def _backward_kernel(kept: Any, q: Any, k: Any, v: Any, g: Any, dq: Any, dk: Any, dv: Any, *, width: int) -> None:
    allowed = kept[0] != 0  # [l 1]: scores are transposed, so that sums over keys are sums of registers

    def group(lanes: Any) -> None:
        queries, keys, values, cotangent = q[0, :, lanes], k[0, :, lanes], v[0, :, lanes], g[0, :, lanes]
        head = lax.broadcasted_iota(jnp.int32, queries.shape, 1) // width
        results = [jnp.zeros(queries.shape, jnp.float32)] * 3
        for number in range(LANES // width):
            own = head == number
            scores = _dot(jnp.where(own, keys, 0), queries, _ROWS_BY_ROWS) * width**-0.5
            scores = jnp.where(allowed, scores, _LOWEST)
            weights = jnp.exp(scores - jnp.max(scores, axis=0, keepdims=True))
            weights = weights / jnp.sum(weights, axis=0, keepdims=True)
            change = _dot(jnp.where(own, values, 0), cotangent, _ROWS_BY_ROWS)
            change = weights * (change - jnp.sum(weights * change, axis=0, keepdims=True)) * width**-0.5
            change = change.astype(queries.dtype)
            found = (
                _dot(change, keys, _COLUMNS_BY_COLUMNS),
                _dot(change, queries, _PRODUCT),
                _dot(weights.astype(cotangent.dtype), cotangent, _PRODUCT),
            )
            results = [jnp.where(own, new, old) for new, old in zip(found, results, strict=True)]
        for place, result in zip((dq, dk, dv), results, strict=True):
            place[0, :, lanes] = result.astype(place.dtype)

    _for_each_group(q.shape[2], q.shape[1], group)
