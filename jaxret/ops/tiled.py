"""Sums over score matrices that never exist: tile after tile, and device after device.

The forward pass keeps two numbers a row, a running maximum and a sum, as an online softmax does (Milakov and
Gimelshein 2018), and two a column where those are summed as well. The backward pass computes each tile again and turns
it into gradients at once (Inf-CL, Cheng et al. 2024, section 3). On several devices each holds its own columns, which
go round in a ring with their sums and their gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxret.ops.false_negatives import other_texts

Axes = Sequence[str]
Score = Callable[[Any, Any], Float[Array, "b c"]]


@dataclass(frozen=True)
class Tiles:
    """How score matrices are cut up.

    Attributes:
      rows, columns: of a tile, at most.
      axes: of the mesh, inside a `shard_map` over them: rows and columns are split over them.
    """

    rows: int
    columns: int
    axes: Axes = ()


class Rows(NamedTuple):
    """Of each device its own.

    Attributes:
      x: pytree of what is scored.
      own_keys: [b p], keys of the texts that answer each row, see `other_texts`; such columns are left out.
      place: [b], the number of each row's own column, which no sum holds.
      left_out: [b m], numbers of further columns to leave out, filled up with -1.
    """

    x: Any
    own_keys: Int[Array, "b p"]
    place: Int[Array, " b"]
    left_out: Int[Array, "b m"]


class Columns(NamedTuple):
    """Of each device its own.

    Attributes:
      x: pytree of what is scored.
      keys: [c], of the texts.
      numbers: [c], each column's, another one for every column of all devices.
    """

    x: Any
    keys: Int[Array, " c"]
    numbers: Int[Array, " c"]


class Sums(NamedTuple):
    """What is left of a score matrix.

    Attributes:
      along: [b], `log sum exp` of what counts in a row; -inf where nothing does.
      down: [c], the same of a column; None where it is not wanted.
      own: [b], the score of each row with its own column.
      first: [b], whether that is the highest of all columns, left out or not; of equal ones the lowest number's is.
    """

    along: Float[Array, " b"]
    down: Float[Array, " c"] | None
    own: Float[Array, " b"]
    first: Bool[Array, " b"]


@dataclass(frozen=True)
class Block:
    """A score matrix.

    Attributes:
      score: of `x` of the rows and `x` of the columns; a score depends on its row and its column alone.
      down: whether columns are summed too.
    """

    score: Score
    down: bool = False


def tiled_sums(blocks: Sequence[Block], rows: Rows, columns: Columns, tiles: Tiles) -> list[Sums]:
    """The sums of several score matrices of the same rows and columns, which all leave out the same."""
    (row_floats, row_rest, row_joined), (column_floats, column_rest, column_joined) = _parted(rows), _parted(columns)
    sizes = min(tiles.rows, len(rows.place)), min(tiles.columns, len(columns.numbers))
    program = _Program(blocks, row_joined, column_joined, sizes, _Ring(tiles.axes))

    @jax.custom_vjp
    def sums(row_floats: list[Array], column_floats: list[Array], rest: Any) -> list[Sums]:
        return program.forward((row_floats, rest[0]), (column_floats, rest[1]))

    def kept_forward(row_floats: list[Array], column_floats: list[Array], rest: Any) -> Any:
        found = sums(row_floats, column_floats, rest)
        levels = [(_level(x.along), None if x.down is None else _level(x.down)) for x in found]
        return found, (row_floats, column_floats, rest, levels)

    def backward(residuals: Any, cotangents: list[Sums]) -> Any:
        row_floats, column_floats, rest, levels = residuals
        found = list(zip(levels, cotangents, strict=True))
        of_rows = [(along, weight.along, weight.own) for (along, _), weight in found]
        of_columns = [() if down is None else (down, weight.down) for (_, down), weight in found]
        sides = (row_floats, rest[0]), (column_floats, rest[1])
        return *program.gradients(*sides, (of_rows, of_columns)), None

    sums.defvjp(kept_forward, backward)
    return sums(row_floats, column_floats, (row_rest, column_rest))


@dataclass(frozen=True)
class _Program:
    """What happens to each tile, forwards and backwards; of a side it knows its floats and the rest of it.

    Attributes:
      blocks: the score matrices.
      row_joined, column_joined: `(floats, rest) -> Rows`, and `Columns`.
      sizes: rows and columns of a tile.
      ring: the devices.
    """

    blocks: Sequence[Block]
    row_joined: Callable[..., Rows]
    column_joined: Callable[..., Columns]
    sizes: tuple[int, int]
    ring: _Ring

    def forward(self, rows: Any, columns: Any) -> list[Sums]:
        """What `tiled_sums` gives."""
        (rows, b), (columns, c) = _cut(rows, self.sizes[0]), _cut(columns, self.sizes[1])
        row_sums, column_sums = ((jnp.full(x.real.shape, -jnp.inf), jnp.zeros(x.real.shape)) for x in (rows, columns))

        def step(along: Any, block: Any) -> Any:
            columns, down = block

            def one_row(down: Any, entry: Any) -> Any:
                row, along = entry

                def one_tile(along: Any, tile: Any) -> Any:
                    column, down = tile
                    masks, found = self._masks(row, column), self._scores(row, column)(row.floats, column.floats)
                    down = [
                        _added(sums, x.T, masks.kept.T) if sums else () for sums, x in zip(down, found, strict=True)
                    ]
                    return [_seen(state, x, masks) for state, x in zip(along, found, strict=True)], down

                along, down = lax.scan(one_tile, along, (columns, down))
                return down, along

            down, along = lax.scan(one_row, down, (rows, along))
            return along, (columns, down)

        low, zero = row_sums
        start = [(row_sums, zero, low, low) for _ in self.blocks]
        block = columns, [column_sums if x.down else () for x in self.blocks]
        along, (_, down) = self.ring.around(step, start, block)
        return [_sums(*x, b, c) for x in zip(along, down, strict=True)]

    def gradients(self, rows: Any, columns: Any, weights: Any) -> tuple[list[Array], list[Array]]:
        """The gradients of both sides' floats.

        Args:
          rows, columns: the sides.
          weights: of both sides, what `_share` takes of a row and of a column.
        """
        like = rows[0], columns[0]
        rows, columns = (_cut(x, size, w)[0] for x, size, w in zip((rows, columns), self.sizes, weights, strict=True))
        zeros = [[jnp.zeros(x.shape, jnp.float32) for x in side.floats] for side in (rows, columns)]

        def step(row_gradient: Any, block: Any) -> Any:
            columns, column_gradient = block

            def one_row(column_gradient: Any, entry: Any) -> Any:
                row, row_gradient = entry

                def one_tile(row_gradient: Any, column: Any) -> Any:
                    masks = self._masks(row, column)
                    found, pull = jax.vjp(self._scores(row, column), row.floats, column.floats)
                    weights = zip(found, row.weights, column.weights, strict=True)
                    row_more, column_more = pull([_share(*x, masks) for x in weights])
                    return _sum(row_gradient, row_more), [g.astype(jnp.float32) for g in column_more]

                row_gradient, more = lax.scan(one_tile, row_gradient, columns)
                return _sum(column_gradient, more), row_gradient

            column_gradient, row_gradient = lax.scan(one_row, column_gradient, (rows, row_gradient))
            return row_gradient, (columns, column_gradient)

        row_gradient, (_, column_gradient) = self.ring.around(step, zeros[0], (columns, zeros[1]))
        return _whole(row_gradient, like[0]), _whole(column_gradient, like[1])

    def _scores(self, row: _Side, column: _Side) -> Callable[[list[Array], list[Array]], list[Float[Array, "b c"]]]:
        def scores(x: list[Array], y: list[Array]) -> list[Float[Array, "b c"]]:
            one, other = self.row_joined(x, row.rest).x, self.column_joined(y, column.rest).x
            return [block.score(one, other).astype(jnp.float32) for block in self.blocks]

        return scores

    def _masks(self, row: _Side, column: _Side) -> _Masks:
        one, other = self.row_joined(row.floats, row.rest), self.column_joined(column.floats, column.rest)
        place, numbers, real = one.place[:, None], other.numbers[None], row.real[:, None] & column.real[None]
        others = other_texts(one.own_keys, other.keys[None]) & other_texts(one.left_out, numbers) & (numbers != place)
        return _Masks(*(real & x for x in (others, numbers == place, numbers < place, numbers > place)))


class _Side(NamedTuple):
    """Tiles [tiles size ...] of one side, or one of them."""

    floats: list[Array]
    rest: list[Array]
    weights: Any
    real: Bool[Array, "*tiles n"]  # False where a tile is filled up


class _Masks(NamedTuple):
    """Which scores of a tile count, which are the rows' own, which are of columns before those and behind them."""

    kept: Bool[Array, "b c"]
    own: Bool[Array, "b c"]
    before: Bool[Array, "b c"]
    behind: Bool[Array, "b c"]


def _added(sums: tuple[Array, Array], scores: Array, kept: Array) -> tuple[Array, Array]:
    """Maximum and sum of exponentials, with those of further columns."""
    highest, total = sums
    scores = jnp.where(kept, scores, -jnp.inf)
    above = jnp.maximum(highest, jnp.max(scores, axis=1))
    level = _level(above)
    return above, total * jnp.exp(highest - level) + jnp.sum(jnp.exp(scores - level[:, None]), axis=1)


def _seen(state: Any, scores: Array, masks: _Masks) -> Any:
    """The sums along the rows, their own scores, and the highest before those and behind them."""
    sums, own, *highest = state
    own = own + jnp.sum(scores, axis=1, where=masks.own)
    others = zip(highest, (masks.before, masks.behind), strict=True)
    tops = [jnp.maximum(x, jnp.max(scores, axis=1, where=side, initial=-jnp.inf)) for x, side in others]
    return _added(sums, scores, masks.kept), own, *tops


def _sums(along: Any, down: Any, b: int, c: int) -> Sums:
    (highest, total), own, before, behind = jax.tree.map(lambda x: x.reshape(-1)[:b], along)
    columns = [x.reshape(-1)[:c] for x in down]
    return Sums(
        jnp.log(total) + highest,
        jnp.log(columns[1]) + columns[0] if down else None,
        own,
        (own > before) & (own >= behind),
    )


def _share(scores: Array, of_row: Any, of_column: Any, masks: _Masks) -> Array:
    """The gradient of a tile's scores.

    Args:
      scores: of the tile.
      of_row: `log sum exp`, its cotangent, and that of the own score.
      of_column: `log sum exp` and its cotangent, or nothing.
      masks: of the tile.
    """
    level, weight, own = (x[:, None] for x in of_row)
    share = jnp.where(masks.kept, jnp.exp(scores - level) * weight, jnp.where(masks.own, own, 0.0))
    if not of_column:
        return share
    level, weight = (x[None] for x in of_column)
    return share + jnp.where(masks.kept, jnp.exp(scores - level) * weight, 0.0)


def _level(x: Array) -> Array:
    """0 where nothing counts."""
    return jnp.where(jnp.isfinite(x), x, 0.0)


class _Ring:
    """The devices along some axes of a mesh, each with a block that visits all of them."""

    def __init__(self, axes: Axes):
        self._axes = tuple(axes)
        self._size = int(np.prod([lax.axis_size(axis) for axis in axes])) if axes else 1

    def around(self, step: Callable[[Any, Any], tuple[Any, Any]], state: Any, block: Any) -> tuple[Any, Any]:
        """`step(state, block) -> (state, block)` with all blocks; at the end each is where it was."""

        def visited(carry: tuple[Any, Any], _: None) -> Any:
            state, block = step(*carry)
            onward = [(place, (place + 1) % self._size) for place in range(self._size)]
            if self._size > 1:
                block = jax.tree.map(lambda x: lax.ppermute(x, self._axes, onward), block)
            return (state, block), None

        return lax.scan(visited, (state, block), None, self._size)[0]


def _parted(tree: Any) -> tuple[list[Array], list[Array], Callable[[Sequence[Array], Sequence[Array]], Any]]:
    """The arrays with a gradient, the others, and what puts both together."""
    leaves, structure = jax.tree.flatten(tree)
    smooth = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def joined(floats: Sequence[Array], rest: Sequence[Array]) -> Any:
        sources = iter(rest), iter(floats)
        return jax.tree.unflatten(structure, [next(sources[kind]) for kind in smooth])

    floats, rest = ([leaf for leaf, kind in zip(leaves, smooth, strict=True) if kind is side] for side in (True, False))
    return floats, rest, joined


def _cut(side: Any, size: int, weights: Any = ()) -> tuple[_Side, int]:
    """Floats and rest [n ...] as tiles, filled up with zeros, and n."""
    floats, rest = side
    n = len(rest[0])

    def cut(x: Array) -> Array:
        tiles = -(-n // size)
        x = jnp.pad(x, [(0, tiles * size - n), *[(0, 0)] * (x.ndim - 1)])
        return x.reshape(tiles, size, *x.shape[1:])

    return jax.tree.map(cut, _Side(floats, rest, weights, jnp.ones(n, jnp.bool_))), n


def _whole(tiles: Sequence[Array], like: Sequence[Array]) -> list[Array]:
    """Tiles as arrays of the shapes and dtypes of `like`."""
    return [x.reshape(-1, *y.shape[1:])[: len(y)].astype(y.dtype) for x, y in zip(tiles, like, strict=True)]


def _sum(x: Sequence[Array], y: Sequence[Array]) -> list[Array]:
    return [a + b.astype(a.dtype) for a, b in zip(x, y, strict=True)]
