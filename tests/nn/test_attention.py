import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.attention import SelfAttention, attended, rotary_tables, rotated

B, H, L, W = 2, 3, 5, 4


def example(seed=0):
    random = np.random.default_rng(seed)
    q, k, v = random.normal(size=(3, B, H, L, W))
    mask = random.random((B, L)) < 0.6
    mask[:, 0] = True
    return q, k, v, mask


def softmax_attention(q, k, v, mask):
    """One query, one kept key at a time."""
    mixed = np.zeros_like(q)
    for b, h, i in np.ndindex(q.shape[:3]):
        kept = np.flatnonzero(mask[b])
        scores = np.array([q[b, h, i] @ k[b, h, j] / np.sqrt(q.shape[-1]) for j in kept])
        weights = np.exp(scores - scores.max())
        mixed[b, h, i] = sum(w * v[b, h, j] for w, j in zip(weights / weights.sum(), kept, strict=True))
    return mixed


def turned(x, base):
    """Rotary positions as complex numbers: component j and j + w/2 turn together."""
    half = x.shape[-1] // 2
    z = x[..., :half] + 1j * x[..., half:]
    angles = np.arange(x.shape[-2])[:, None] * base ** (-np.arange(half)[None, :] / half)
    z = z * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag], axis=-1)


def test_attended_equals_a_loop():
    q, k, v, mask = example()
    mixed = attended(*(jnp.float32(x) for x in (q, k, v)), jnp.asarray(mask))
    np.testing.assert_allclose(mixed, softmax_attention(q, k, v, mask), rtol=1e-5, atol=1e-5)


def test_large_scores_do_not_overflow():
    q, k, v, mask = example()
    mixed = attended(*(jnp.float32(x) for x in (q * 1e3, k * 1e3, v)), jnp.asarray(mask))
    np.testing.assert_allclose(mixed, softmax_attention(q * 1e3, k * 1e3, v, mask), rtol=1e-4, atol=1e-4)


def test_a_row_without_kept_keys_gives_no_nan():
    q, k, v, mask = example()
    mask[1] = False
    value, gradients = jax.value_and_grad(lambda *x: jnp.sum(attended(*x, jnp.asarray(mask)) ** 2), argnums=(0, 1, 2))(
        *(jnp.float32(x) for x in (q, k, v))
    )
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in gradients)


def test_rotation_equals_complex_multiplication():
    x = example()[0]
    np.testing.assert_allclose(
        rotated(jnp.float32(x), *rotary_tables(L, W, 100.0)), turned(x, 100.0), rtol=1e-5, atol=1e-5
    )


def test_scores_depend_on_relative_positions_only():
    random = np.random.default_rng(0)
    q, k = (jnp.asarray(np.broadcast_to(random.normal(size=(1, 1, 1, 8)), (1, 1, 9, 8)), jnp.float32) for _ in range(2))
    tables = rotary_tables(9, 8, 100.0)
    scores = np.einsum("bhlw,bhmw->lm", rotated(q, *tables), rotated(k, *tables))
    for offset in range(-8, 9):
        diagonal = np.diagonal(scores, offset)
        np.testing.assert_allclose(diagonal, np.full_like(diagonal, diagonal[0]), rtol=1e-4, atol=1e-5)
    assert len(np.unique(np.round(scores[0], 4))) == 9
    assert not np.allclose(scores, scores.T, atol=1e-2), "forward and backward must differ"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_self_attention_equals_plain_arrays(random_params, dtype):
    module, d = SelfAttention(num_heads=H, rope_base=50.0), H * W
    x, mask = np.random.default_rng(1).normal(size=(B, L, d)), example()[3]
    x = jnp.asarray(x, dtype)
    params = nn.meta.unbox(module.init(jax.random.key(0), x, jnp.asarray(mask)))["params"]
    params = random_params(params)
    y = module.apply({"params": params}, x, jnp.asarray(mask))
    assert y.dtype == x.dtype
    qkv = (np.float64(x) @ np.float64(params["qkv"]["kernel"])).reshape(B, L, 3, H, W).transpose(2, 0, 3, 1, 4)
    mixed = softmax_attention(turned(qkv[0], 50.0), turned(qkv[1], 50.0), qkv[2], mask)
    expected = mixed.transpose(0, 2, 1, 3).reshape(B, L, d) @ np.float64(params["output"]["kernel"])
    tolerance = 1e-5 if dtype == "float32" else 5e-2
    np.testing.assert_allclose(np.float64(y), expected, rtol=tolerance, atol=tolerance)
