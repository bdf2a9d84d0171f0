import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxret.search.lengths import by_bucket, filled_rows, fine_lengths, longest_first


@given(st.lists(st.integers(0, 300)))
def test_every_row_is_in_the_smallest_bucket_that_holds_it(sizes):
    groups = list(by_bucket(sizes))
    assert sorted(row for _, rows in groups for row in rows) == list(range(len(sizes)))
    assert [length for length, _ in groups] == sorted({length for length, _ in groups})
    buckets = fine_lengths(max(sizes, default=0))
    for length, rows in groups:
        assert len(rows) and list(rows) == sorted(rows)
        for row in rows:
            assert length == next(bucket for bucket in buckets if bucket >= sizes[row])


def test_arrays_will_do():
    assert [(length, rows.tolist()) for length, rows in by_bucket(np.array([5, 20, 16]))] == [(16, [0, 2]), (24, [1])]


def test_four_lengths_an_octave():
    assert fine_lengths(150) == [16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160]
    assert fine_lengths(150, steps=8) == [*range(16, 129, 8), 144, 160]
    assert fine_lengths(0) == fine_lengths(16) == [16]
    lengths = fine_lengths(8192)
    assert lengths[-1] == 8192 and len(lengths) == 7 + 4 * 7
    assert all(b <= 1.5 * a if b <= 24 else b < 1.34 * a for a, b in itertools.pairwise(lengths))


@given(st.lists(st.integers(0, 300)), st.integers(1, 700))
def test_batches_are_full_but_for_the_last(sizes, tokens):
    batches = list(longest_first(sizes, lambda length: max(1, tokens // length)))
    assert sorted(row for _, rows in batches for row in rows) == list(range(len(sizes)))
    ordered = [sizes[row] for _, rows in batches for row in rows]
    assert ordered == sorted(sizes, reverse=True)
    for number, (length, rows) in enumerate(batches):
        assert length == next(fine for fine in fine_lengths(300) if fine >= sizes[rows[0]])
        full = max(1, tokens // length)
        assert len(rows) == full or (number == len(batches) - 1 and len(rows) < full)


@given(st.integers(1, 400), st.integers(1, 50), st.sampled_from([1, 2, 8]))
def test_few_rows_take_a_power_of_two_a_device(rows, most, devices):
    rows, full = min(rows, most * devices), most * devices
    size = filled_rows(rows, full, devices)
    assert rows <= size <= full and size % devices == 0
    assert size == full or ((size // devices).bit_count() == 1 and size < 2 * rows + 2 * devices)
