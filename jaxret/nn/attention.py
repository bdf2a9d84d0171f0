"""Self-attention: one signature, interchangeable implementations.

Each is `(q [b h l w], k [b g l w], v [b g l w], mask [b l], *, causal, window) -> [b h l w]`, where `g` divides `h`
(grouped queries, Ainslie et al. 2023). Position i attends to position j where `mask[:, j]` holds and, with `causal`,
j <= i, and, with `window` > 0, |i - j| <= window. Padded rows are finite and attended by none. `plain_attention`
takes a mask for each position too, `[b l l]` with `mask[:, i, j]`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxret.ops.products import rows_product, wide_einsum

Attention = Callable[..., Float[Array, "b h l w"]]


def plain_attention(
    q: Float[Array, "b h l w"],
    k: Float[Array, "b g l w"],
    v: Float[Array, "b g l w"],
    mask: Bool[Array, "b l"] | Bool[Array, "b l l"],
    *,
    causal: bool = False,
    window: int = 0,
) -> Float[Array, "b h l w"]:
    """Every score at once, `b h l l` of them; blocks of keys instead where a window is much shorter than the text."""
    length = q.shape[2]
    if window and 3 * window < length and mask.ndim == 2:
        return local_attention(q, k, v, mask, causal=causal, window=window)
    allowed = mask[:, None, None, None, :] if mask.ndim == 2 else mask[:, None, None]
    if causal or window:
        distance = jnp.arange(length)[None, :] - jnp.arange(length)[:, None]
        allowed = allowed & _near(distance, causal, window)[None, None, None]
    return _mixed(_grouped(q, k.shape[1]), k, v, allowed).reshape(q.shape)


def local_attention(
    q: Float[Array, "b h l w"],
    k: Float[Array, "b g l w"],
    v: Float[Array, "b g l w"],
    mask: Bool[Array, "b l"],
    *,
    causal: bool = False,
    window: int,
) -> Float[Array, "b h l w"]:
    """Blocks of `window` queries against their own block of keys and its neighbours: O(l x window) time and memory."""
    b, h, length, w = q.shape
    groups, blocks = k.shape[1], -(-length // window)
    padding = blocks * window - length
    q_blocks = _padded(_grouped(q, groups), 3, 0, padding).reshape(b, groups, h // groups, blocks, window, w)
    after = 0 if causal else window
    k_blocks, v_blocks = (
        _neighbourhoods(_padded(x, 2, window, after + padding), 2, blocks, window, causal) for x in (k, v)
    )
    kept = _neighbourhoods(_padded(mask, 1, window, after + padding), 1, blocks, window, causal)
    distance = jnp.arange(kept.shape[-1])[None, :] - window - jnp.arange(window)[:, None]
    allowed = kept[:, None, None, :, None, :] & _near(distance, causal, window)[None, None, None, None]
    mixed = _mixed(q_blocks, k_blocks, v_blocks, allowed)
    return mixed.reshape(b, h, blocks * window, w)[:, :, :length]


def fused_attention(
    q: Float[Array, "b h l w"],
    k: Float[Array, "b g l w"],
    v: Float[Array, "b g l w"],
    mask: Bool[Array, "b l"],
    *,
    causal: bool = False,
    window: int = 0,
    implementation: Literal["xla", "cudnn"] = "xla",
) -> Float[Array, "b h l w"]:
    """`jax.nn.dot_product_attention`; "cudnn" is fused on GPUs in bfloat16.

    cuDNN knows padding as lengths, so there the kept keys must come first in each row, and its windows must be causal;
    other windows go to `local_attention`.
    """
    fused = implementation == "cudnn"
    if window and fused and not causal:
        return local_attention(q, k, v, mask, causal=causal, window=window)
    lengths = jnp.sum(mask, axis=1, dtype=jnp.int32)
    q, k, v = (jnp.moveaxis(x, 1, 2) for x in (q, k, v))
    mixed: Any = jax.nn.dot_product_attention(
        q,
        k,
        v,
        mask=None if fused else mask[:, None, None, :],
        key_value_seq_lengths=lengths if fused else None,
        is_causal=causal,
        local_window_size=((window, 0) if causal else (window, window)) if window else None,
        implementation=implementation,
    )
    return jnp.moveaxis(mixed, 1, 2)


def _near(distance: Array, causal: bool, window: int) -> Bool[Array, "l m"]:
    near = jnp.ones(distance.shape, jnp.bool_) if not window else jnp.abs(distance) <= window
    return near & (distance <= 0) if causal else near


def _grouped(q: Float[Array, "b h l w"], groups: int) -> Float[Array, "b g r l w"]:
    b, h, length, w = q.shape
    return q.reshape(b, groups, h // groups, length, w)


def _padded(x: Array, axis: int, before: int, after: int) -> Array:
    return jnp.pad(x, [(before, after) if place == axis else (0, 0) for place in range(x.ndim)])


def _neighbourhoods(x: Array, axis: int, blocks: int, size: int, causal: bool) -> Array:
    """Each block of the axis joined to the one before it and, if not causal, the one after it."""
    split = x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
    parts = [jax.lax.slice_in_dim(split, start, start + blocks, axis=axis) for start in range(2 if causal else 3)]
    return jnp.concatenate(parts, axis=axis + 1)


def _mixed(
    q: Float[Array, "b g r *n l w"], k: Float[Array, "b g *n m w"], v: Float[Array, "b g *n m w"], allowed: Array
) -> Float[Array, "b g r *n l w"]:
    """Softmax over allowed keys."""
    if q.shape[2] == 1:  # products with fewer axes have faster kernels
        return _softmax_mixed(q[:, :, 0], k, v, allowed[:, :, 0])[:, :, None]
    k, v = (jnp.broadcast_to(x[:, :, None], (*q.shape[:3], *x.shape[2:])) for x in (k, v))
    return _softmax_mixed(q, k, v, allowed)


@jax.custom_vjp
def _softmax_mixed(
    q: Float[Array, "*n l w"], k: Float[Array, "*n m w"], v: Float[Array, "*n m w"], allowed: Array
) -> Float[Array, "*n l w"]:
    """Scores and softmax in float32, the division after the value product.

    The backward pass keeps the weights in the dtype of `q`, and so are its products; a query without keys has no
    gradient. Those weights times their cotangents, summed over keys, are the output times its own, summed over the
    width (Dao et al. 2022, section 3.1).
    """
    return _softmax_forward(q, k, v, allowed)[0]


def _softmax_forward(q, k, v, allowed):
    scores = wide_einsum("...lw,...mw->...lm", q, k) * q.shape[-1] ** -0.5
    lowest = jnp.finfo(scores.dtype).min
    scores = jnp.where(allowed, scores, lowest)
    highest = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(v.dtype)
    mixed = (wide_einsum("...lm,...mw->...lw", weights, v) / total).astype(q.dtype)
    return mixed, (q, k, v, weights, jnp.where(highest > lowest, total, jnp.inf), mixed)


def _softmax_backward(residuals, cotangent):
    q, k, v, weights, total, mixed = residuals
    g = (cotangent / total).astype(q.dtype)
    sums = jnp.sum(cotangent * (mixed / total), axis=-1, keepdims=True)
    slopes = weights * (wide_einsum("...lw,...mw->...lm", g, v) - sums) * q.shape[-1] ** -0.5
    slopes = slopes.astype(q.dtype)
    dq, dk, dv = wide_einsum("...lm,...mw->...lw", slopes, k), rows_product(slopes, q), rows_product(weights, g)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


_softmax_mixed.defvjp(_softmax_forward, _softmax_backward)
