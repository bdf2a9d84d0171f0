"""MaxSim of a block of documents on TPUs: a kernel that writes nothing but the scores.

Products stay in registers. The documents' tokens lie along sublanes, so that a maximum is one instruction for 1024
products, and the queries along lanes, token after token, so that a query's sum is one of registers too.

A float32 product is six of bfloat16. Where the documents are bfloat16 or int8 it is three: a query's number is the sum
of three of bfloat16, and the documents' are of bfloat16 as they are; scales are multiplied to the products.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from jaxret.ops import block_scores
from jaxret.ops.block_scores import QueryTokens, Tiles

LANES, EIGHT = 128, 8
BLOCK = 2**21  # numbers that a step has of the documents, and of the queries
ENOUGH, MOST = 2**22, 2**23  # products of 128 numbers in a step: enough to hide its start, and not too long a program
AT_ONCE = 4 * LANES  # columns of one product, for the four units of a core
VMEM_BYTES = 64 * 2**20


def unfit(queries: QueryTokens, documents: Tiles) -> str:
    """Why the kernel does not take these shapes; "" where it does."""
    (b, s, k), (m, n, t, _) = queries.vectors.shape, documents.vectors.shape
    if queries.vectors.dtype not in (jnp.bfloat16, jnp.float32):
        return "queries are bfloat16 or float32"
    if k % LANES:
        return f"vectors fill {LANES} lanes"
    if LANES % b or s % EIGHT or t % EIGHT:
        return f"{LANES} is a multiple of the queries, and their tokens and the documents' are multiples of {EIGHT}"
    if m * n % _fewest(t):
        return f"there are a multiple of {_fewest(t)} documents"
    if _fewest(t) * t * k > BLOCK or max(LANES, EIGHT * b) * k > BLOCK:
        return f"{_fewest(t)} documents, and {EIGHT} tokens of all queries, have at most {BLOCK} numbers"
    return ""


class Step(NamedTuple):
    """What the kernel takes at a time.

    Attributes:
      documents: whose scores it finds.
      columns: tokens of all queries together.
    """

    documents: int
    columns: int


def kernel_scores(queries: QueryTokens, documents: Tiles, interpret: bool = False) -> Float[Array, "b c"]:
    """MaxSim of shapes that are not `unfit`; `interpret` runs it anywhere, slowly.

    The sum over a query's tokens has one order, whatever the shapes: by halves within eights, then over them.
    """
    (b, s, k), (m, n, t, _) = queries.vectors.shape, documents.vectors.shape
    counted = jnp.where(queries.mask[:, :, None], queries.vectors, 0)  # a token of zeros adds 0
    columns = jnp.transpose(counted, (2, 1, 0)).reshape(k, s * b)
    columns = jnp.pad(columns, ((0, 0), (0, -s * b % LANES)))
    passes = _passes(queries, documents)
    if passes == 3:
        columns = jnp.concatenate(_thirds(columns))
    step = _step(m * n, t, (k, columns.shape[1]), b, passes)
    rows, blocks = step.documents * t, m * n // step.documents
    used = jnp.any(jnp.repeat(documents.used, n).reshape(blocks, step.documents), axis=1)
    fetched = lax.cummax(jnp.where(used, jnp.arange(blocks, dtype=jnp.int32), 0))  # nothing new for one without use
    arrays = [columns, documents.vectors.reshape(m * n * t, k)]
    specs = [
        pl.BlockSpec((len(columns), step.columns), lambda i, j, used, fetched: (0, j)),
        pl.BlockSpec((rows, k), lambda i, j, used, fetched: (fetched[i], 0)),
    ]
    if documents.scales is not None:
        arrays.append(documents.scales.reshape(blocks, rows // LANES, LANES))
        specs.append(pl.BlockSpec((1, rows // LANES, LANES), lambda i, j, used, fetched: (fetched[i], 0, 0)))
    found = pl.pallas_call(
        functools.partial(_kernel, b=b, t=t),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(blocks, columns.shape[1] // step.columns),
            in_specs=specs,
            out_specs=pl.BlockSpec((step.documents, LANES), lambda i, j, used, fetched: (i, 0)),
        ),
        out_shape=jax.ShapeDtypeStruct((m * n, LANES), jnp.float32),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=VMEM_BYTES
        ),
        interpret=interpret,
    )(used.astype(jnp.int32), fetched, *arrays)
    return jnp.where(jnp.repeat(documents.used, n), found[:, :b].T, 0.0)


def _kernel(used: Any, _: Any, queries: Any, tokens: Any, *rest: Any, b: int, t: int) -> None:
    *scales, scores = rest

    @pl.when(pl.program_id(1) == 0)
    def _start() -> None:
        scores[...] = jnp.zeros_like(scores)

    @pl.when(used[pl.program_id(0)] != 0)
    def _add() -> None:
        apart = queries.shape[0] // tokens.shape[1]
        wide = _wide(scales[0][0]) if scales else None
        decoded = _decoded(tokens[...], wide if apart == 1 else None, queries.dtype)
        decoded = jnp.concatenate([decoded] * apart, axis=1)
        best: list[Array] = []
        for first in range(0, queries.shape[1], AT_ONCE):
            products = lax.dot_general(
                decoded,
                queries[:, first : first + AT_ONCE],
                (((1,), (0,)), ((), ())),
                precision=block_scores.precision(queries.dtype),
                preferred_element_type=jnp.float32,
            )
            if apart > 1 and wide is not None:
                products *= _beside(wide, products.shape[1])
            most = jnp.max(products.reshape(-1, t, products.shape[1]), axis=1)
            best += jnp.split(most, most.shape[1] // LANES, axis=1)
        scores[...] = _summed(best, b, scores[...])


def _thirds(x: Array) -> list[Array]:
    """The three numbers of bfloat16 whose sum a float32 is, the largest first."""
    parts = []
    for _ in range(3):
        parts.append(lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7))
        x = x - parts[-1]
    return [part.astype(jnp.bfloat16) for part in parts]


def _wide(scales: Array) -> Array:
    """Scales that stand in lanes `[groups 128]`, each over all lanes of its row `[(groups 128) 128]`."""
    groups = range(scales.shape[0])
    return jnp.concatenate([jnp.broadcast_to(scales[group : group + 1], (LANES, LANES)).T for group in groups])


def _beside(wide: Array, columns: int) -> Array:
    return jnp.concatenate([wide] * (columns // LANES), axis=1)


def _decoded(tokens: Array, wide: Array | None, dtype: jnp.dtype) -> Array:
    """As the plain version has it: a row times its scale."""
    if wide is None:
        return tokens if tokens.dtype == dtype else tokens.astype(jnp.float32).astype(dtype)
    return (tokens.astype(jnp.float32) * _beside(wide, tokens.shape[1])).astype(dtype)


def _summed(best: list[Array], b: int, scores: Array) -> Array:
    """Adds the sums over the columns of each query to the first `b` lanes of `scores`; the other lanes mean nothing."""
    eight = EIGHT * b
    together = max(1, eight // LANES)
    for first in range(0, len(best), together):
        parts = best[first : first + together]
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [x + y for x, y in zip(parts[:half], parts[half:], strict=True)]
        (sums,) = parts
        apart = min(eight, LANES) // 2
        while apart >= b:
            sums, apart = sums + _shifted(sums, apart), apart // 2
        for number in range(max(1, LANES // eight)):
            scores = scores + _shifted(sums, number * eight)
    return scores


def _shifted(x: Array, lanes: int) -> Array:
    return pltpu.roll(x, LANES - lanes, 1) if lanes else x


def _fewest(t: int) -> int:
    """Documents of a step are a multiple of these: their scores fill sublanes, and their tokens' scales lanes."""
    return math.lcm(EIGHT, LANES // math.gcd(t, LANES))


def _passes(queries: QueryTokens, documents: Tiles) -> int:
    """How many products of bfloat16 one is."""
    if queries.vectors.dtype == jnp.bfloat16:
        return 1
    return 6 if documents.vectors.dtype == jnp.float32 else 3


def _step(documents: int, t: int, columns: tuple[int, int], b: int, passes: int) -> Step:
    """Sizes that divide the whole."""
    (k, width), fewest, unit = columns, _fewest(t), max(LANES, EIGHT * b)
    passes *= k // LANES
    fits = lambda n: n * t * k <= BLOCK and n * t * width * passes <= ENOUGH  # noqa: E731
    taken = max(n for n in _divisors(documents // fewest) if n == 1 or fits(n * fewest)) * fewest
    most = min(BLOCK // k, MOST // (taken * t * passes))
    return Step(taken, max(n for n in _divisors(width // unit) if n == 1 or n * unit <= most) * unit)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
