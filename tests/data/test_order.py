import itertools

import numpy as np
import pytest

from jaxret.data import order as module
from jaxret.data.order import Order


def stream(sizes, rates=(1.0,), *, batches, start=0, batch=8, seed=3, first=0, last=None):
    """[(table, row, draw), ...] of one process, as plain Python: a table's next row whenever the table comes up."""
    order = Order(sizes, rates, seed, batch, first, batch if last is None else last)
    numbers = [
        itertools.chain.from_iterable(zip(*pair, strict=True) for pair in order.rows(t, start))
        for t in range(len(sizes))
    ]
    tables = itertools.chain.from_iterable(order.tables(start))
    count = batches * (order.last - order.first)
    return [(int(t), *map(int, next(numbers[t]))) for t in itertools.islice(tables, count)]


def test_each_epoch_has_every_row_once_in_another_order():
    epochs = np.array([row for _, row, _ in stream((24,), batches=9)]).reshape(3, 24)
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_draws_count_up_in_each_table():
    drawn = stream((5, 9), (1.0, 2.0), batches=20)
    for table in (0, 1):
        draws = [draw for t, _, draw in drawn if t == table]
        assert draws == list(range(len(draws)))
        rows = [row for t, row, _ in drawn if t == table][: 2 * (5, 9)[table]]
        assert sorted(rows) == sorted(list(range((5, 9)[table])) * 2)


@pytest.mark.parametrize("rates", [(1.0,), (1.0, 3.0, 0.5)])
@pytest.mark.parametrize("start", [1, 4, 13])
def test_start_anywhere(rates, start, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 24)  # not a multiple of the batch of 10, which crosses blocks
    module._block.cache_clear()
    sizes = (7, 11, 5)[: len(rates)]
    whole = stream(sizes, rates, batches=20, batch=10)
    assert stream(sizes, rates, batches=20 - start, batch=10, start=start) == whole[10 * start :]
    module._block.cache_clear()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_cut_the_same_batches_into_blocks(processes):
    sizes, rates, share = (13, 6), (1.0, 0.7), 8 // processes
    whole = stream(sizes, rates, batches=6, start=2)
    parts = [stream(sizes, rates, batches=6, start=2, first=p * share, last=(p + 1) * share) for p in range(processes)]
    for batch in range(6):
        joined = [example for part in parts for example in part[batch * share : (batch + 1) * share]]
        assert joined == whole[batch * 8 : (batch + 1) * 8]


def test_seed():
    assert stream((50,), batches=3) == stream((50,), batches=3)
    assert stream((50,), batches=3) != stream((50,), batches=3, seed=4)


def test_rates():
    tables = [table for table, _, _ in stream((9, 9, 9), (1.0, 2.0, 5.0), batches=100, batch=80)]
    assert np.bincount(tables) / 8000 == pytest.approx([0.125, 0.25, 0.625], abs=0.02)
