import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.nn.config import EncoderConfig
from jaxret.nn.encoder import Encoder, unstacked
from jaxret.train.throughput import (
    kernel_weights,
    padding_share,
    pairs,
    peak_flops,
    tokens,
    training_flops,
    windows,
)

SMALL = EncoderConfig(vocab_size=50, width=8, num_layers=3, num_heads=4, num_kv_heads=2, mlp_width=12)
# Lengths of queries 2 and 3, of passages 4, 1, 0 and 4: 14 of 2 x 4 + 4 x 5 = 28 places.
QUERY = np.array([[5, 6, -1, -1], [7, 8, 9, -1]])
PASSAGE = np.array([[[1, 2, 3, 4, -1], [9, -1, -1, -1, -1]], [[-1] * 5, [4, 3, 2, 1, -1]]])
BATCH = {"query": QUERY, "passage": PASSAGE, "passage_key": np.array([[3, 4], [5, -1]]), "language": np.zeros(2)}


def test_tokens_and_padding():
    assert tokens(BATCH) == 14
    assert padding_share(BATCH) == 0.5
    assert tokens({"language": np.zeros(2)}) == 0 and padding_share({"language": np.zeros(2)}) == 0.0


def test_training_flops_by_hand():
    # Queries 4 x 2, keys and values 2 x 2 each, output 4 x 2, of width 8; a gated MLP.
    assert kernel_weights(SMALL) == 3 * (8 * (8 + 4 + 4 + 8) + 3 * 8 * 12)
    assert kernel_weights(EncoderConfig(width=8, num_layers=1, num_heads=2, mlp_width=5, gated=False)) == 8 * 32 + 80
    attended = 2**2 + 3**2 + 4**2 + 1 + 0 + 4**2
    assert training_flops(SMALL, BATCH) == 6 * kernel_weights(SMALL) * 14 + 12 * 3 * 8 * attended
    attended = 2 * 4**2 + 4 * 5**2
    assert training_flops(SMALL, BATCH, padded=True) == 6 * kernel_weights(SMALL) * 28 + 12 * 3 * 8 * attended


def test_texts_in_one_row_do_not_attend_to_each_other():
    packed = {"masked": np.array([[4, 5, 6, 7, 8, -1]]), "segments": np.array([[0, 0, 1, 1, 1, -1]])}
    assert tokens(packed) == 5 and padding_share(packed) == pytest.approx(1 / 6)
    assert training_flops(SMALL, packed) == training_flops(SMALL, {"query": QUERY})


@pytest.mark.parametrize("window", [0, 1, 2, 7])
def test_pairs_equal_a_count(window):
    lengths = np.arange(6)
    counted = [
        sum(not window or abs(i - j) <= window for i in range(length) for j in range(length)) for length in lengths
    ]
    np.testing.assert_array_equal(pairs(lengths, window), counted)


def test_layers_that_attend_everywhere():
    assert windows(SMALL) == [0, 0, 0]
    local = {"width": 8, "num_heads": 2, "num_layers": 4, "window": 3}
    assert windows(EncoderConfig(**local)) == [3, 3, 3, 3]
    assert windows(EncoderConfig(**local, global_every=3)) == [0, 3, 3, 0]


def test_flops_are_those_that_the_compiler_counts():
    config = EncoderConfig(vocab_size=40, width=128, num_layers=2, num_heads=2, mlp_width=256)
    ids = jnp.ones((2, 64), jnp.int32)
    encoder = Encoder(config)
    shapes = jax.eval_shape(lambda: unstacked(encoder.init(jax.random.key(0), ids, ids > 0)["params"]))

    def loss(params):
        return jnp.sum(encoder.apply({"params": params}, ids, ids > 0)[0] ** 2)

    counted = jax.jit(jax.grad(loss)).lower(shapes).compile().cost_analysis()["flops"]
    assert counted == pytest.approx(training_flops(config, {"query": np.ones((2, 64))}), rel=0.05)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("cpu", None),
    ],
)
def test_peaks(kind, peak):
    assert peak_flops(kind) == peak
