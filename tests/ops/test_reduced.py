import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops.block_scores import QueryTokens, Rows, Tiles, dense_scores, multi_vector_scores
from jaxret.ops.reduced import lengths, maxsim_error, score_error, token_lengths
from jaxret.search.dtypes import quantized

WIDTH, QUERIES, DOCUMENTS = 48, 5, 128


def normal(rows, seed, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=(rows, WIDTH))).astype(np.float32)


def decoded(documents):
    rows = np.asarray(documents.vectors, np.float64)
    return rows if documents.scales is None else rows * np.float64(documents.scales)[:, None]


CASES = {
    "float32": Rows(normal(DOCUMENTS, 1)),
    "bfloat16": Rows(normal(DOCUMENTS, 1).astype(jnp.bfloat16)),
    "int8": Rows(*quantized(normal(DOCUMENTS, 1))),
    "tiny": Rows(normal(DOCUMENTS, 1, 1e-30)),
    "huge": Rows(normal(DOCUMENTS, 1, 1e25)),
    "denormal": Rows(normal(DOCUMENTS, 1, 1e-39)),
    "one value": Rows(np.full((DOCUMENTS, WIDTH), 1 + 2.0**-9 - 2.0**-20, np.float32)),
    "zero": Rows(np.zeros((DOCUMENTS, WIDTH), np.float32)),
}


@pytest.mark.parametrize("case", CASES)
def test_products_in_bfloat16_and_in_float32_are_within_the_bound(case):
    """All values round down in "one value", so that nothing cancels."""
    documents = CASES[case]
    queries = (
        normal(QUERIES, 2) if case != "one value" else np.full((QUERIES, WIDTH), 1 + 2.0**-9 - 2.0**-20, np.float32)
    )
    scores = np.asarray(jax.jit(dense_scores)(queries.astype(jnp.bfloat16), documents))
    plain = np.asarray(jax.jit(dense_scores)(queries, documents))
    bound = score_error(queries, np.asarray(jax.jit(lengths)(documents)))
    assert bound.shape == (QUERIES,) and (bound > 0).all()
    lost = np.abs(scores.astype(np.float64) - plain).max(axis=1)
    assert (lost <= bound).all()
    if case == "one value":
        assert (lost > 0.3 * bound).all(), "the bound is not loose"


@pytest.mark.parametrize("case", CASES)
def test_sums_of_largest_products_are_within_the_bound(case):
    rows = CASES[case]
    scales = None if rows.scales is None else rows.scales[:60].reshape(2, 6, 5)
    documents = Tiles(rows.vectors[:60].reshape(2, 6, 5, WIDTH), np.ones(2, bool), scales)
    tokens = normal(3 * 8, 2) if case != "one value" else np.full((3 * 8, WIDTH), 1 + 2.0**-9 - 2.0**-20, np.float32)
    mask = np.arange(8)[None, :] < np.array([[8], [5], [1]])
    queries = QueryTokens(tokens.reshape(3, 8, WIDTH), mask)
    reduced = QueryTokens(queries.vectors.astype(jnp.bfloat16), mask)
    scores, plain = (np.asarray(jax.jit(multi_vector_scores)(each, documents)) for each in (reduced, queries))
    longest = np.asarray(jax.jit(token_lengths)(documents))
    bounds = [maxsim_error(vectors[used], longest) for vectors, used in zip(*queries, strict=True)]
    lost = np.abs(scores.astype(np.float64) - plain).max(axis=1)
    assert (lost <= bounds).all() and (np.array(bounds) > 0).all()
    if case == "one value":
        assert (lost > 0.3 * np.array(bounds)).all(), "the bound is not loose"


@pytest.mark.parametrize("scale", [1e37, np.inf, np.nan])
def test_nothing_is_known_of_products_that_may_overflow(scale):
    longest = np.array([scale, 1.0], np.float32)
    queries = normal(QUERIES, 2)
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(score_error(10 * queries, longest)).any()
        assert not np.isfinite(maxsim_error(10 * queries, longest))


def test_the_bound_is_small():
    queries, documents = normal(QUERIES, 2), CASES["float32"]
    bound = score_error(queries, np.asarray(jax.jit(lengths)(documents)))
    longest = np.linalg.norm(documents.vectors, axis=1).max()
    assert (bound < 2.0**-8 * 1.2 * longest * np.linalg.norm(queries, axis=1)).all()


@pytest.mark.parametrize("case", ["float32", "int8", "tiny", "huge", "zero"])
def test_lengths_are_norms(case):
    rows = decoded(CASES[case])
    lost = rows - rows.astype(np.float32).astype(jnp.bfloat16).astype(np.float64)
    expected = [np.linalg.norm(x, axis=1).max() for x in (rows, lost)]
    np.testing.assert_allclose(jax.jit(lengths)(CASES[case]), expected, rtol=1e-4)
