"""Which implementation of attention runs where."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxret.errors import InputError
from jaxret.nn.attention import Attention, fused_attention, plain_attention
from jaxret.runtime.mesh import BATCH

LANES = 128
SPLASH_FROM = 1024  # a shorter text's scores fit beside its states


def automatic_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, **shape: Any) -> jax.Array:
    """The cuDNN kernel on GPUs where it takes the dtype, the splash kernel for long texts on TPUs, plain otherwise."""
    backend = jax.default_backend()
    if backend == "gpu" and q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0:
        return CHOICES["cudnn"](q, k, v, mask, **shape)
    if backend == "tpu" and q.shape[2] >= SPLASH_FROM:
        return splash_attention(q, k, v, mask, **shape)
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

    Under a mesh each device takes its own rows and heads. `interpret` runs it anywhere, slowly.
    """
    one = partial(_splash_rows, causal=causal, window=window, interpret=interpret)
    places = _places(k)
    if places is None:
        return one(q, k, v, mask)
    specs = (places, places, places, PartitionSpec(places[0]))
    return jax.shard_map(one, mesh=jax.sharding.get_abstract_mesh(), in_specs=specs, out_specs=places, check_vma=False)(
        q, k, v, mask
    )


CHOICES: dict[str, Attention] = {
    "auto": automatic_attention,
    "plain": plain_attention,
    "xla": fused_attention,
    "cudnn": partial(fused_attention, implementation="cudnn"),
    "splash": splash_attention,
}


@lru_cache
def attention_named(name: str) -> Attention:
    """The implementation of that name, which under a mesh splits rows and heads over the devices.

    Raises:
      InputError: no such name; it lists them.
    """
    if name not in CHOICES:
        raise InputError("attention", f"unknown {name!r}", f"Choose one of {', '.join(CHOICES)}.")
    return partial(_over_devices, CHOICES[name])


def _over_devices(
    attention: Attention, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, **shape: Any
) -> jax.Array:
    """`attention`, told where its operands are.

    Left to itself the partitioner follows the embeddings' sharding and splits widths instead of rows, in all layers.
    """
    places = _places(k)
    if places is None:
        return attention(q, k, v, mask, **shape)
    q, k, v = (jax.lax.with_sharding_constraint(x, places) for x in (q, k, v))
    return attention(q, k, v, mask, **shape)


def _places(k: jax.Array) -> PartitionSpec | None:
    """Where rows and heads go; an axis that does not divide stays whole. None without a mesh of several devices."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return None
    rows = BATCH if k.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0 else None
    return PartitionSpec(rows, "tensor" if k.shape[1] % mesh.shape["tensor"] == 0 else None)


def _splash_rows(q, k, v, mask, *, causal: bool, window: int, interpret: bool) -> jax.Array:
    length, width = q.shape[2], q.shape[3]
    padding = -length % LANES
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, padding), (0, 0))) for x in (q * width**-0.5, k, v))
    # Padding is a segment of its own: it attends to itself alone, and so stays finite.
    segments = jnp.pad(mask, ((0, 0), (0, padding))).astype(jnp.int32)
    kernel = _kernel(q.shape[1], length + padding, causal, window, interpret)
    ids = _segment_ids()(segments, segments)
    return jax.vmap(kernel)(q, k, v, ids)[:, :, :length].astype(q.dtype)


def _segment_ids() -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    return SegmentIds


def _kernel(heads: int, length: int, causal: bool, window: int, interpret: bool) -> Any:
    """The kernel for one shape; its mask is worked out on the host.

    It holds arrays of the trace that asks for it, so it is made anew; the library remembers the costly part.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    shape = (length, length)
    one: Any = splash.CausalMask(shape) if causal else splash.FullMask(shape)
    if window:
        one = splash.LocalMask(shape, (window, 0 if causal else window), 0)
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
        mask=splash.MultiHeadMask([one] * heads), head_shards=1, q_seq_shards=1, block_sizes=sizes, interpret=interpret
    )
