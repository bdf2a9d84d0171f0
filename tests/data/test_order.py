import itertools

import numpy as np
import pytest

from jaxret.data import order as module
from jaxret.data.order import Draws, Order, kinds_of_batches


def forget():
    module._block.cache_clear()
    module._counts.cache_clear()


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
    forget()
    sizes = (7, 11, 5)[: len(rates)]
    whole = stream(sizes, rates, batches=20, batch=10)
    assert stream(sizes, rates, batches=20 - start, batch=10, start=start) == whole[10 * start :]
    forget()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_cut_the_same_batches_into_blocks(processes):
    sizes, rates, share = (13, 6), (1.0, 0.7), 8 // processes
    whole = stream(sizes, rates, batches=6, start=2)
    parts = [stream(sizes, rates, batches=6, start=2, first=p * share, last=(p + 1) * share) for p in range(processes)]
    for batch in range(6):
        joined = [example for part in parts for example in part[batch * share : (batch + 1) * share]]
        assert joined == whole[batch * 8 : (batch + 1) * 8]


def test_draws_at_any_place(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 24)
    forget()
    draws = Draws((2.0, 1.0, 1.0), 3, 5)
    whole = draws.between(0, 200)
    for begin, end in ((0, 1), (23, 25), (24, 48), (150, 200)):
        np.testing.assert_array_equal(draws.between(begin, end), whole[begin:end])
        np.testing.assert_array_equal(draws.counts(begin), np.bincount(whole[:begin], minlength=3))
    onwards = np.concatenate([*itertools.islice(draws.onwards(10), 3)])
    np.testing.assert_array_equal(onwards[:190], whole[10:])
    forget()


def test_orders_and_kinds_of_one_seed_are_drawn_apart():
    """Several orders in a run, and which of them is next: no two go the same way."""
    rates, sizes = (1.0, 1.0), (50, 50)
    orders = [Order(sizes, rates, 3, 40, 0, 40, number) for number in range(3)]
    ways = [next(order.tables(0)).tolist() for order in orders] + [kinds_of_batches(rates, 3).between(0, 40).tolist()]
    rows = [next(order.rows(0, 0))[0].tolist() for order in orders]
    assert len({tuple(way) for way in ways}) == 4 and len({tuple(row[:10]) for row in rows}) == 3


def test_seed():
    assert stream((50,), batches=3) == stream((50,), batches=3)
    assert stream((50,), batches=3) != stream((50,), batches=3, seed=4)


def test_rates():
    tables = [table for table, _, _ in stream((9, 9, 9), (1.0, 2.0, 5.0), batches=100, batch=80)]
    assert np.bincount(tables) / 8000 == pytest.approx([0.125, 0.25, 0.625], abs=0.02)
