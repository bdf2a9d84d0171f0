"""The TPU's kernel is the plain MaxSim of a block."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.ops import block_scores
from jaxret.ops.block_scores import QueryTokens, Tiles
from jaxret.runtime import maxsim_kernel
from jaxret.runtime.maxsim_kernel import kernel_scores, unfit


def inputs(b=8, s=16, m=4, n=8, t=16, k=128, stored="float32", dtype="float32", seed=0):
    """Queries of 1 to `s` tokens, whose masked ones are large, and documents in tiles the last two unused."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, s + 1, b)
    mask = np.arange(s)[None] < lengths[:, None]
    q = random.normal(size=(b, s, k)) * np.where(mask, 1, 100)[:, :, None]
    queries = QueryTokens(jnp.asarray(q, dtype), jnp.asarray(mask))
    d, used = random.normal(size=(m, n, t, k)) - 0.2, np.arange(m) < max(1, m - 2)
    if stored != "int8":
        return queries, Tiles(jnp.asarray(d, stored), jnp.asarray(used))
    scales = random.uniform(0.1, 2, size=(m, n, t)).astype(np.float32)
    vectors = np.clip(np.round(40 * d), -127, 127).astype(np.int8)
    return queries, Tiles(jnp.asarray(vectors), jnp.asarray(used), jnp.asarray(scales))


def assert_plain(queries, documents):
    assert not unfit(queries, documents)
    wanted = np.asarray(jax.jit(block_scores.multi_vector_scores)(queries, documents))
    found = np.asarray(jax.jit(partial(kernel_scores, interpret=True))(queries, documents))
    assert found.dtype == np.float32 and found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    assert np.abs(wanted).max() > 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "int8"])
def test_every_dtype(stored, dtype):
    assert_plain(*inputs(stored=stored, dtype=dtype))


def test_a_float32_is_the_sum_of_three():
    x = (np.random.default_rng(0).normal(size=1000) * 2.0 ** np.arange(-50, 50).repeat(10)).astype(np.float32)
    parts = [np.asarray(part) for part in maxsim_kernel._thirds(jnp.asarray(x))]
    assert all(part.dtype == jnp.bfloat16 for part in parts)
    assert (sum(part.astype(np.float64) for part in parts) == x).all()


@pytest.mark.parametrize("stored", ["bfloat16", "int8"])
def test_three_products_are_as_exact_as_float32(stored):
    """Without the smallest part of the queries' numbers the error would be 6e-7."""
    queries, documents = inputs(stored=stored, b=16, s=32)
    vectors = np.asarray(documents.vectors, np.float64)
    if documents.scales is not None:
        vectors *= np.asarray(documents.scales)[..., None]
    best = np.einsum("bsk,mntk->bsmnt", np.asarray(queries.vectors, np.float64), vectors).max(axis=-1)
    exact = np.where(np.asarray(queries.mask)[:, :, None, None], best, 0).sum(axis=1)
    exact = np.where(np.asarray(documents.used)[None, :, None], exact, 0).reshape(16, -1)
    found = np.asarray(kernel_scores(queries, documents, interpret=True))
    assert np.abs(found - exact).max() < 3e-7 * np.abs(exact).max()


@pytest.mark.parametrize("seed", range(12))
def test_random_shapes(seed):
    random = np.random.default_rng(seed)
    choices = [1, 2, 8, 16, 32, 64, 128], [8, 24, 32, 40], [8, 24, 64, 112]
    b, s, t = (int(random.choice(some)) for some in choices)
    m, n, k = 16, int(random.integers(1, 4)), int(random.choice([128, 256]))
    stored, dtype = random.choice(["bfloat16", "int8"]), random.choice(["float32", "bfloat16"])
    assert_plain(*inputs(b, s, m, n, t, k, stored, dtype, seed))


def test_tiles_without_documents_score_zero_and_are_not_read():
    queries, documents = inputs(m=6, n=8, t=128, b=64, s=32)
    used = jnp.asarray([False, True, False, True, False, False])
    broken = jnp.where(used[:, None, None, None], documents.vectors, jnp.nan)
    found = np.asarray(kernel_scores(queries, Tiles(broken, used), interpret=True)).reshape(64, 6, 8)
    assert not found[:, [0, 2, 4, 5]].any()
    wanted = np.asarray(block_scores.multi_vector_scores(queries, Tiles(documents.vectors, used))).reshape(64, 6, 8)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-2)
    assert wanted[:, [1, 3]].all()


def exact_products(b, s):
    """Inputs whose products have few enough bits that float32 adds them up without rounding; their sums do round."""
    queries, documents = inputs(b, s, m=4, n=16, t=16)
    thirds = (jnp.round(documents.vectors * 4) / 3).astype(jnp.bfloat16)
    magnitude = 2.0 ** np.random.default_rng(1).integers(0, 16, (b, s, 1))
    return queries._replace(vectors=jnp.round(queries.vectors * 4) * magnitude), documents._replace(vectors=thirds)


def test_steps_change_no_bit(monkeypatch):
    queries, documents = exact_products(b=64, s=48)
    wanted, steps = np.asarray(kernel_scores(queries, documents, interpret=True)), set()
    for size in 2**10, 2**17, 2**24:
        monkeypatch.setattr(maxsim_kernel, "ENOUGH", size)
        monkeypatch.setattr(maxsim_kernel, "MOST", size)
        steps.add(maxsim_kernel._step(64, 16, (128, 48 * 64), 64, 1))
        found = kernel_scores(queries._replace(vectors=queries.vectors.astype(jnp.bfloat16)), documents, interpret=True)
        assert np.asarray(found).tobytes() == wanted.tobytes()
    assert steps == {(8, 512), (8, 1024), (64, 3072)}


def test_a_batch_changes_no_bit():
    """The scores of 64 queries, and of the first 8 or 2 of them alone: the sums have one order."""
    queries, documents = exact_products(b=64, s=40)
    whole = np.asarray(kernel_scores(queries, documents, interpret=True))
    for few in 2, 8, 16:
        found = kernel_scores(QueryTokens(queries.vectors[:few], queries.mask[:few]), documents, interpret=True)
        assert np.asarray(found).tobytes() == whole[:few].tobytes()


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ({"k": 64}, "vectors fill 128 lanes"),
        ({"b": 24}, "128 is a multiple of the queries"),
        ({"t": 12}, "multiples of 8"),
        ({"m": 1, "n": 12}, "a multiple of 8 documents"),
        ({"m": 1, "n": 8, "t": 24}, "a multiple of 16 documents"),
        ({"m": 8, "n": 1, "t": 4096}, "at most 2097152 numbers"),
        ({"dtype": "float16"}, "bfloat16 or float32"),
    ],
)
def test_what_the_kernel_does_not_take(shape, problem):
    assert problem in unfit(*inputs(**shape))
