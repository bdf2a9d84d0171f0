"""The matrix products of a training step, counted by hand for one chip with every token real.

A product of `[m k]` and `[k n]` takes `2 m k n` operations, and so does each of its two gradients. `model_flops` is
what the model needs; `program_flops` is what a program does, which works some of it out again and leaves attention to
kernels.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from benchmarks.tpu.steps import MOST, PASSAGE, QUERY, TOKEN_WIDTH, WAYS, Step
from jaxret.nn.config import EncoderConfig
from jaxret.train.objectives.predicted import AT_ONCE
from jaxret.train.throughput import kernel_weights, training_flops

BIAS_ROWS = 8  # a bias's gradient is a product with so many rows of ones, see `ops.products.column_sums`


def texts(step: Step) -> list[tuple[int, int]]:
    """(rows, length) of what a chip's encoder reads."""
    if step.kind == "RetroMAE":
        return [(step.rows, PASSAGE)]
    return [(step.rows, QUERY), (step.rows * step.ways, PASSAGE)]


def model_flops(step: Step) -> float:
    """Each product of the model once forwards and twice backwards, attention too.

    The heads are part of the model, and RetroMAE's decoder and the products with the vocabulary at the tokens that are
    predicted. The scores that a loss compares are not.
    """
    encoder, tokens = step.model().config.encoder, _tokens(step)
    total = _trained(encoder, step) + 6 * _head_weights(step) * tokens
    if step.kind == "RetroMAE":
        predicted = step.rows * (MOST + PASSAGE - 2)
        total += _trained(_single(encoder), step) + 6 * _word_weights(encoder) * predicted
    return total


def program_flops(step: Step, *, tpu: bool = True) -> dict[str, float]:
    """Each part's products in the compiled program.

    Args:
      step: which.
      tpu: the encoder's attention is a kernel, whose products the program does not show; else it is plain.
    """
    encoder, tokens = step.model().config.encoder, _tokens(step)
    found = {
        "encoder": (6 * kernel_weights(encoder) + 2 * BIAS_ROWS * _biases(encoder)) * tokens,
        "heads": 6 * _head_weights(step) * tokens,
        "scores": _scores(step, tpu),
    }
    if not tpu:
        found["attention"] = 4 / 3 * _attention(encoder, step)  # the layer keeps no scores: forwards twice
    if step.kind == "RetroMAE":
        layer = _single(encoder)
        kernels = (6 * kernel_weights(layer) + 2 * BIAS_ROWS * _biases(layer)) * tokens
        found["decoder"] = kernels + _attention(layer, step)
        found["vocabulary"] = step.rows * (_read(MOST) + _read(PASSAGE)) * _word_weights(encoder)
    return found


def _tokens(step: Step) -> int:
    return sum(rows * length for rows, length in texts(step))


def _single(encoder: EncoderConfig) -> EncoderConfig:
    """RetroMAE's decoder."""
    return dataclasses.replace(encoder, num_layers=1)


def _trained(encoder: EncoderConfig, step: Step) -> float:
    """The products of an encoder's layers and their attention."""
    rows = zip(("passage", "query"), reversed(texts(step)), strict=False)
    return training_flops(encoder, {name: np.zeros(shape, np.int32) for name, shape in rows})


def _attention(encoder: EncoderConfig, step: Step) -> float:
    """Scores and their mixtures of values, and the gradients."""
    return _trained(encoder, step) - 6 * kernel_weights(encoder) * _tokens(step)


def _biases(encoder: EncoderConfig) -> int:
    """Of all kernels of an encoder's layers."""
    queries, keys = encoder.num_heads * encoder.heads_width, encoder.kv_heads * encoder.heads_width
    inner = (2 if encoder.gated else 1) * encoder.mlp_width
    sizes = encoder.qkv_bias * (queries + 2 * keys) + encoder.output_bias * encoder.width
    return encoder.num_layers * (sizes + encoder.mlp_bias * (inner + encoder.width))


def _head_weights(step: Step) -> int:
    """That every token meets: one weight for the lexical head, a token vector."""
    heads = step.model().config.heads
    return step.model().config.encoder.width * (("lexical" in heads) + TOKEN_WIDTH * ("multi_vector" in heads))


def _word_weights(encoder: EncoderConfig) -> int:
    """That a token meets whose place is predicted: the transform, and the table."""
    return encoder.width * (encoder.width + encoder.vocab_size)


def _read(positions: int) -> int:
    """Operations for each weight at a text's predicted places: in pieces, each read again in the backward pass."""
    pieces = -(-positions // AT_ONCE)
    return 8 * pieces * AT_ONCE if pieces > 1 else 6 * positions


def _scores(step: Step, tpu: bool) -> float:
    """Every query against every passage of all chips, or against its own alone.

    MaxSim's gradient is no product. Where there is one, its maxima and their places are wanted, and XLA for TPUs makes
    the products once for each.
    """
    if step.kind == "RetroMAE":
        return 0.0
    encoder = step.model().config.encoder
    lexical, tokens, matched = encoder.vocab_size, 2 * QUERY * PASSAGE * TOKEN_WIDTH, 1 + tpu
    if step.kind == "distillation":
        return step.rows * WAYS * (6 * (encoder.width + lexical) + matched * tokens)
    pairs = step.rows * step.rows * step.chips
    if step.kind == "dense":
        return pairs * 6 * encoder.width
    # A tile's scores are made again in the backward pass.
    return pairs * (8 * (encoder.width + lexical) + (1 + matched) * tokens)
