"""InfoNCE whose score matrix never exists: tile after tile, and device after device.

The forward pass keeps two numbers a query, a running maximum and a sum, as an online softmax does (Milakov and
Gimelshein 2018). The backward pass computes each tile again and turns it into gradients at once (Inf-CL, Cheng et al.
2024, section 3). On several devices each holds its own documents, which go round in a ring with their gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxret.ops.false_negatives import other_texts

Axes = Sequence[str]
Score = Callable[[Any, Any], Float[Array, "b c"]]


def tiled_info_nce(
    score: Score,
    q: Any,
    d: Any,
    own_keys: Int[Array, "b p"],
    keys: Int[Array, " c"],
    positive: Int[Array, " b"],
    *,
    temperature: float,
    rows: int,
    columns: int,
    axes: Axes = (),
) -> tuple[Float[Array, " b"], Bool[Array, " b"]]:
    """`ops.contrastive.info_nce` of all pairs, and whether the positive has the highest score of all documents.

    Args:
      score: of pytrees with b and c rows; a pair's score depends on its two rows alone.
      q: the queries.
      d: the documents; of each device its own, where there are `axes`.
      own_keys: keys of the texts that answer each query, see `other_texts`; they are no negatives of it.
      keys: of the documents.
      positive: column of each query's positive, counted over the documents of all devices.
      temperature: divides every score.
      rows, columns: of a tile, at most.
      axes: of the mesh, inside a `shard_map` over them: the queries are split over them as the documents are.
    """
    (q_floats, q_rest, q_joined), (d_floats, d_rest, d_joined) = _parted(q), _parted(d)

    def logits(x: list[Array], i: list[Array], y: list[Array], j: list[Array]) -> Float[Array, "b c"]:
        return score(q_joined(x, i), d_joined(y, j)).astype(jnp.float32) / temperature

    numbers = jnp.arange(1, len(keys) + 1)  # 0 where a tile is filled up
    rest = (q_rest, own_keys, positive), (d_rest, keys, numbers)
    sizes = min(rows, len(positive)), min(columns, len(keys))
    program = _Program(logits, sizes, len(positive), len(keys), _Ring(axes))

    @jax.custom_vjp
    def loss(q_floats: list[Array], d_floats: list[Array], rest: Any) -> Any:
        return program.forward(q_floats, d_floats, rest)[0]

    def kept_forward(q_floats: list[Array], d_floats: list[Array], rest: Any) -> Any:
        found, logsumexp = program.forward(q_floats, d_floats, rest)
        return found, (q_floats, d_floats, rest, logsumexp)

    def backward(residuals: Any, cotangents: Any) -> Any:
        q_floats, d_floats, rest, logsumexp = residuals
        return *program.gradients(q_floats, d_floats, rest, logsumexp, cotangents[0]), None

    loss.defvjp(kept_forward, backward)
    return loss(q_floats, d_floats, rest)


@dataclass(frozen=True)
class _Program:
    """What happens to each tile, forwards and backwards.

    Attributes:
      logits: `(q floats, q rest, d floats, d rest) -> [b c]`.
      sizes: rows and columns of a tile.
      rows, columns: how many there are on a device.
      ring: the devices.
    """

    logits: Callable[..., Array]
    sizes: tuple[int, int]
    rows: int
    columns: int
    ring: _Ring

    def forward(self, q: list[Array], d: list[Array], rest: Any) -> tuple[Any, Array]:
        """Losses, who is right, and each row's `log sum exp`."""
        (rows, where), columns = _tiled((q, rest[0]), self.sizes[0]), _tiled((d, rest[1]), self.sizes[1])
        low, zero = jnp.full(where[-1].shape, -jnp.inf), jnp.zeros(where[-1].shape)

        def step(state: Any, block: Any, first: Array) -> Any:
            def one_row(entry: Any) -> Any:
                (x, row), state = entry

                def one_tile(state: Any, tile: Any) -> Any:
                    y, column = tile
                    return _added(state, self.logits(x, row[0], y, column[0]), *_masks(row, column, first)), None

                return lax.scan(one_tile, state, block)[0]

            return lax.map(one_row, ((rows, where), state)), block

        state, _ = self.ring.around(step, (low, zero, zero, low), columns, self.columns)
        highest, total, own, other = (x.reshape(-1)[: self.rows] for x in state)
        logsumexp = jnp.log(total) + highest
        return (logsumexp - own, own > other), logsumexp

    def gradients(
        self, q: list[Array], d: list[Array], rest: Any, logsumexp: Array, weight: Array
    ) -> tuple[list[Array], list[Array]]:
        """The gradients of the floats of both sides, the losses weighted."""
        rows, columns = _tiled((q, rest[0], weight, logsumexp), self.sizes[0]), _tiled((d, rest[1]), self.sizes[1])
        zeros = [[jnp.zeros(x.shape, jnp.float32) for x in side[0]] for side in (rows, columns)]

        def step(q_gradient: Any, block: Any, first: Array) -> Any:
            columns, d_gradient = block

            def one_row(d_gradient: Any, entry: Any) -> Any:
                (x, row, weight, logsumexp), q_gradient = entry

                def one_tile(q_gradient: Any, tile: Any) -> Any:
                    y, column = tile
                    found, pull = jax.vjp(lambda x, y: self.logits(x, row[0], y, column[0]), x, y)
                    kept, mine, _ = _masks(row, column, first)
                    share = jnp.where(kept, jnp.exp(found - logsumexp[:, None]), 0.0) - mine
                    q_more, d_more = pull(share * weight[:, None])
                    return _sum(q_gradient, q_more), [g.astype(jnp.float32) for g in d_more]

                q_gradient, more = lax.scan(one_tile, q_gradient, columns)
                return _sum(d_gradient, more), q_gradient

            d_gradient, q_gradient = lax.scan(one_row, d_gradient, (rows, q_gradient))
            return q_gradient, (columns, d_gradient)

        q_gradient, (_, d_gradient) = self.ring.around(step, zeros[0], (columns, zeros[1]), self.columns)
        return _whole(q_gradient, q), _whole(d_gradient, d)


def _masks(row: Any, column: Any, first: Array) -> tuple[Array, Array, Array]:
    """Which scores of a tile count, which are the positive's, which are of documents."""
    (_, own_keys, positive), (_, keys, numbers) = row, column
    valid = (numbers > 0)[None]
    mine = ((first + numbers - 1)[None] == positive[:, None]) & valid
    return (other_texts(own_keys, keys[None]) & valid) | mine, mine, valid


def _added(state: Any, logits: Array, kept: Array, mine: Array, valid: Array) -> Any:
    """Maximum and sum of exponentials of the kept, the positive's logit, and the highest of the others."""
    highest, total, own, other = state
    above = jnp.maximum(highest, jnp.max(logits, axis=1, where=kept, initial=-jnp.inf))
    level = jnp.where(jnp.isfinite(above), above, 0.0)
    exponentials = jnp.where(kept, jnp.exp(logits - level[:, None]), 0.0)
    total = total * jnp.exp(highest - level) + jnp.sum(exponentials, axis=1)
    own = own + jnp.sum(logits, axis=1, where=mine)
    return above, total, own, jnp.maximum(other, jnp.max(logits, axis=1, where=valid & ~mine, initial=-jnp.inf))


class _Ring:
    """The devices along some axes of a mesh, each with a block that visits all of them."""

    def __init__(self, axes: Axes):
        self._axes = tuple(axes)
        self._size = int(np.prod([lax.axis_size(axis) for axis in axes])) if axes else 1

    def around(
        self, step: Callable[[Any, Any, Array], tuple[Any, Any]], state: Any, block: Any, width: int
    ) -> tuple[Any, Any]:
        """`step(state, block, first column) -> (state, block)` with all blocks, each of `width` documents."""
        me = lax.axis_index(self._axes) if self._axes else 0

        def visited(carry: tuple[Any, Any], number: Array) -> Any:
            state, block = step(*carry, (me - number) % self._size * width)
            onward = [(place, (place + 1) % self._size) for place in range(self._size)]
            if self._size > 1:
                block = jax.tree.map(lambda x: lax.ppermute(x, self._axes, onward), block)
            return (state, block), None

        return lax.scan(visited, (state, block), jnp.arange(self._size))[0]


def _parted(tree: Any) -> tuple[list[Array], list[Array], Callable[[Sequence[Array], Sequence[Array]], Any]]:
    """The arrays with a gradient, the others, and what puts both together."""
    leaves, structure = jax.tree.flatten(tree)
    smooth = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def joined(floats: Sequence[Array], rest: Sequence[Array]) -> Any:
        sources = iter(rest), iter(floats)
        return jax.tree.unflatten(structure, [next(sources[kind]) for kind in smooth])

    floats, rest = ([leaf for leaf, kind in zip(leaves, smooth, strict=True) if kind is side] for side in (True, False))
    return floats, rest, joined


def _tiled(tree: Any, size: int) -> Any:
    """Arrays [n ...] as [tiles size ...], filled up with zeros."""

    def tiled(x: Array) -> Array:
        tiles = -(-len(x) // size)
        x = jnp.pad(x, [(0, tiles * size - len(x)), *[(0, 0)] * (x.ndim - 1)])
        return x.reshape(tiles, size, *x.shape[1:])

    return jax.tree.map(tiled, tree)


def _whole(tiles: Sequence[Array], like: Sequence[Array]) -> list[Array]:
    """Tiles as arrays of the shapes and dtypes of `like`."""
    return [x.reshape(-1, *y.shape[1:])[: len(y)].astype(y.dtype) for x, y in zip(tiles, like, strict=True)]


def _sum(x: Sequence[Array], y: Sequence[Array]) -> list[Array]:
    return [a + b.astype(a.dtype) for a, b in zip(x, y, strict=True)]
