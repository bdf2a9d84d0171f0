from types import SimpleNamespace

import numpy as np
import pytest

from jaxret.nn.config import EncoderConfig
from jaxret.train.throughput import training_flops
from jaxret.train.work import Work, work_of

ENCODER = EncoderConfig(vocab_size=9, width=8, num_layers=1, num_heads=2, mlp_width=12)


def batch():
    query = np.array([[3, 4, -1, -1], [5, -1, -1, -1]], np.int32)
    return {"query": query, "passage": np.full((2, 3, 2), 4, np.int32), "passage_key": np.zeros((2, 3), np.int32)}


def test_rows_tokens_and_padding_are_counted():
    work = work_of(batch(), SimpleNamespace(encoder=ENCODER))
    assert (work.examples, work.tokens, work.places) == (2, 15, pytest.approx(20))
    assert work.flops == training_flops(ENCODER, batch()) > 0
    both = work + work
    assert (both.examples, both.tokens, both.flops) == (4, 30, 2 * work.flops)
    assert both.shares() == {"padding_share": pytest.approx(0.25)}


def test_rates_are_those_of_the_devices():
    work = Work(examples=4.0, tokens=30.0, places=40.0, flops=989e12)
    devices = np.array([SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")] * 4).reshape(4, 1, 1)
    assert work.rates(devices) == {"examples_per_second": 4, "tokens_per_second": 30, "mfu": 0.25}
    cpu = np.array([SimpleNamespace(device_kind="cpu")]).reshape(1, 1, 1)
    assert work.rates(cpu) == {"examples_per_second": 4, "tokens_per_second": 30}


def test_a_batch_without_ids_and_a_model_without_an_encoder_have_examples_alone():
    work = work_of({"x": np.ones((5, 2), np.float32)}, None)
    assert work == Work(examples=5.0) and work.shares() == {}
