"""Which implementation of attention runs where."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxret.errors import InputError
from jaxret.nn.attention import Attention, fused_attention, plain_attention
from jaxret.runtime.mesh import BATCH
from jaxret.runtime.short_attention import short_attention, unfit

LANES = 128
SHORT_FROM = 64  # scores of still shorter texts are few
SPLASH_FROM = 1024  # a shorter text's scores fit beside its states


def automatic_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, **shape: Any) -> jax.Array:
    """The cuDNN kernel on GPUs where it takes the dtype, a kernel for short or for long texts on TPUs, else plain."""
    backend = jax.default_backend()
    if backend == "gpu" and q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0:
        return CHOICES["cudnn"](q, k, v, mask, **shape)
    if backend == "tpu" and q.shape[2] >= SPLASH_FROM:
        return splash_attention(q, k, v, mask, **shape)
    if backend == "tpu" and q.shape[2] >= SHORT_FROM and not unfit(q, k, mask, **shape):
        return short_attention(q, k, v, mask)
    return plain_attention(q, k, v, mask, **shape)


def splash_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    *,
    causal: bool = False,
    window: int = 0,
    interpret: bool = False,
) -> jax.Array:
    """The TPU kernel that never stores the scores and skips blocks outside a window or above the diagonal.

    `interpret` runs it anywhere, slowly.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    length, width = q.shape[2], q.shape[3]
    padding = -length % LANES
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, padding), (0, 0))) for x in (q * width**-0.5, k, v))
    # Padding is a segment of its own: it attends to itself alone, and so stays finite.
    segments = jnp.pad(mask, ((0, 0), (0, padding))).astype(jnp.int32)
    kernel = _kernel(q.shape[1], length + padding, causal, window, interpret)
    return jax.vmap(kernel)(q, k, v, SegmentIds(segments, segments))[:, :, :length].astype(q.dtype)


CHOICES: dict[str, Attention] = {
    "auto": automatic_attention,
    "plain": plain_attention,
    "xla": fused_attention,
    "cudnn": partial(fused_attention, implementation="cudnn"),
    "splash": splash_attention,
    "short": short_attention,
}


@lru_cache
def attention_named(name: str) -> Attention:
    """The implementation of that name; under a mesh each device takes its own rows and heads.

    Raises:
      InputError: no such name; it lists them.
    """
    if name not in CHOICES:
        raise InputError("attention", f"unknown {name!r}", f"Choose one of {', '.join(CHOICES)}.")
    return partial(_over_devices, CHOICES[name])


def _over_devices(
    attention: Attention, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, **shape: Any
) -> jax.Array:
    """`attention` with rows split over `data` and `fsdp` and heads over `tensor`; what does not divide stays whole.

    Left to itself the partitioner follows the embeddings' sharding and splits widths instead of rows, in all layers.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = [axis for axis in mesh.axis_names if axis not in mesh.manual_axes]  # the others are split already
    if all(mesh.shape[axis] == 1 for axis in free):
        return attention(q, k, v, mask, **shape)
    tensor, batch = mesh.shape["tensor"], tuple(axis for axis in BATCH if axis in free)
    rows = batch if q.shape[0] % math.prod(mesh.shape[axis] for axis in batch) == 0 else None
    heads = "tensor" if q.shape[1] % tensor == 0 else None
    if heads:
        copies = math.lcm(k.shape[1], tensor) // k.shape[1]  # so that each device has the keys of its queries
        k, v = (jnp.repeat(x, copies, axis=1) for x in (k, v))
    places = PartitionSpec(rows, heads)
    one = jax.shard_map(
        partial(attention, **shape),
        mesh=mesh,
        in_specs=(places, places, places, PartitionSpec(rows)),
        out_specs=places,
        axis_names=set(free),
        check_vma=False,
    )
    return one(q, k, v, mask)


def _kernel(heads: int, length: int, causal: bool, window: int, interpret: bool) -> Any:
    """The kernel for one shape; its mask is worked out on the host.

    It holds arrays of the trace that asks for it, so it is made anew; the library remembers the costly part.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    shape = (length, length)
    if window:
        pattern: Any = splash.LocalMask(shape, (window, 0 if causal else window), 0)
    else:
        pattern = splash.CausalMask(shape) if causal else splash.FullMask(shape)
    block = max(size for size in (128, 256, 512) if length % size == 0)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    return splash.make_splash_mha(
        mask=splash.MultiHeadMask([pattern] * heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=sizes,
        interpret=interpret,
    )
