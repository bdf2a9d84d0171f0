"""Contrastive losses over the whole global batch without its score matrix: memory for a tile, whatever the batch."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from jaxret.nn.retriever import Embeddings
from jaxret.ops.false_negatives import below_positive, other_texts
from jaxret.ops.memory_bank import UNKNOWN
from jaxret.ops.tiled import Tiles
from jaxret.ops.tiled_contrastive import Groups, tiled_improved_contrastive, tiled_info_nce
from jaxret.runtime.mesh import BATCH
from jaxret.train.objectives.represented import (
    Batch,
    Metrics,
    Represented,
    needed,
    over_heads,
    pair_scores,
)

NO_HEAD = Embeddings(None, None, None, None)


def tiled_contrast(
    r: Represented,
    batch: Batch,
    step: Any = None,
    *,
    temperature: Mapping[str, float],
    weight: Mapping[str, float],
    loss: Callable[..., tuple[Array, Array]] = tiled_info_nce,
    teacher_margin: float | None = None,
    relative_teacher_margin: float = 0.0,
    mask_known: bool = True,
    rows: int = 4096,
    columns: int = 512,
) -> tuple[Float[Array, ""], Metrics]:
    """`contrast`, tile after tile; the heads are those that have a weight.

    On a mesh no device holds the documents of all: they go round in a ring.

    Args:
      r: the embeddings.
      batch: as in `contrast`.
      step: takes no part.
      temperature: by head.
      weight: by head.
      loss: of `ops.tiled_contrastive`: `tiled_info_nce`, `tiled_symmetric_info_nce` or `tiled_pair_and_in_batch`.
      teacher_margin, relative_teacher_margin, mask_known: as in `contrast`.
      rows, columns: queries and documents of a tile. MaxSim holds `rows * s * columns` numbers, lexical scores the
        weights of a tile's texts over the vocabulary.
    """
    groups = _groups(batch, teacher_margin, relative_teacher_margin, mask_known)
    losses, metrics = {}, Metrics()
    for head in weight:
        program = functools.partial(loss, temperature=temperature[head])
        losses[head], first = _of_head(program, r, head, groups, rows, columns)
        metrics[f"accuracy_{head}"] = jnp.mean(first)
    total, found = over_heads("loss", losses, weight)
    return total, found | metrics | {"effective_negatives": jnp.mean(_negatives(groups))}


def tiled_improved_contrast(
    r: Represented,
    batch: Batch,
    step: Any = None,
    *,
    temperature: Mapping[str, float],
    weight: Mapping[str, float],
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    delta: float = 0.0,
    mask_known: bool = True,
    rows: int = 4096,
    columns: int = 512,
) -> tuple[Float[Array, ""], Metrics]:
    """`improved_contrast`, tile after tile; `rows` and `columns` as in `tiled_contrast`, all else as there."""
    groups = _groups(batch, None, 0.0, mask_known)
    loss = functools.partial(tiled_improved_contrastive, alpha=alpha, beta=beta, gamma=gamma, delta=delta)
    losses = {}
    for head in weight:
        program = functools.partial(loss, temperature=temperature[head])
        losses[head] = _of_head(program, r, head, groups, rows, columns)
    total, found = over_heads("loss", losses, weight)
    return total, found | {"effective_negatives": jnp.mean(_negatives(groups))}


def _groups(batch: Batch, margin: float | None, relative_margin: float, known: bool) -> Groups:
    """What `candidates` says, without its matrix; the embeddings are still to come."""
    keys = batch["passage_key"]
    b, n = keys.shape
    numbers = jnp.arange(b * n, dtype=jnp.int32).reshape(b, n)
    own_keys = batch.get("positive_keys", keys[:, :1]) if known else keys[:, :0]
    left_out = numbers[:, :0]
    if margin is not None:
        teacher = batch["teacher_scores"]
        left_out = jnp.where(below_positive(teacher, teacher[:, 0], margin, relative_margin), UNKNOWN, numbers)
    return Groups(None, None, own_keys, keys, numbers, left_out)


def _of_head(loss: Callable[..., Any], r: Represented, head: str, groups: Groups, rows: int, columns: int) -> Any:
    """The loss of one head, each device with its own rows of the groups."""
    mesh = jax.sharding.get_abstract_mesh()
    split = not mesh.empty and math.prod(mesh.shape[axis] for axis in BATCH) > 1
    score, tiles = functools.partial(_score, r.maxsim, head), Tiles(rows, columns, BATCH if split else ())
    program: Any = functools.partial(loss, score, tiles=tiles)
    if split:
        part = PartitionSpec(BATCH)
        program = jax.shard_map(
            program, mesh=mesh, in_specs=part, out_specs=part, axis_names=set(BATCH), check_vma=False
        )
    return program(groups._replace(q=_alone(r.query, head), d=_alone(r.passage, head)))


def _negatives(groups: Groups) -> Float[Array, " b"]:
    """How many documents of the batch each query has as negatives."""
    own, keys = groups.own_keys, groups.keys
    repeated = jnp.any(jnp.tril(own[:, :, None] == own[:, None, :], -1), axis=2) | (own == UNKNOWN)
    ordered = jnp.sort(keys.reshape(-1))
    first, last = (jnp.searchsorted(ordered, own, side=side) for side in ("left", "right"))
    answers = jnp.sum(jnp.where(repeated, 0, last - first), axis=1)
    positive = jnp.arange(keys.shape[1])[None] == 0
    left_out = other_texts(own, keys) & (positive | ~other_texts(groups.left_out, groups.numbers))
    return (keys.size - answers - jnp.sum(left_out, axis=1)).astype(jnp.float32)


def _score(maxsim: str, head: str, q: Embeddings, d: Embeddings) -> Float[Array, "b c"]:
    return pair_scores(maxsim, q, d)[head]


def _alone(embeddings: Embeddings, head: str) -> Embeddings:
    """The embeddings of one head; InputError where the model lacks it."""
    name = {"multi_vector": "tokens"}.get(head, head)
    parts = {name: needed(embeddings, name)} | ({"mask": embeddings.mask} if name == "tokens" else {})
    return dataclasses.replace(NO_HEAD, **parts)
