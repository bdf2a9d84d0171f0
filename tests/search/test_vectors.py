import numpy as np
import pytest

from jaxret.search.vectors import Ragged, Vectors

ROWS = [np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((0, 2)), np.array([[5.0, 6.0]]), np.zeros((0, 2))]


def test_rows_come_back():
    ragged = Ragged.from_rows(ROWS)
    assert len(ragged) == 4
    assert ragged.lengths.tolist() == [2, 0, 1, 0]
    for number, row in enumerate(ROWS):
        np.testing.assert_array_equal(ragged.row(number), row)


@pytest.mark.parametrize("length", [2, 4])
def test_short_rows_are_filled_with_their_first_value_and_empty_ones_with_zeros(length):
    found = Ragged.from_rows(ROWS).padded(np.array([2, 0, 3, 1, 0]), length)
    assert found.shape == (5, length, 2)
    for row, number in zip(found, (2, 0, 3, 1, 0), strict=True):
        kept = ROWS[number]
        for place in range(length):
            expected = kept[place] if place < len(kept) else kept[0] if len(kept) else 0
            np.testing.assert_array_equal(row[place], np.broadcast_to(expected, 2))


def test_padding_of_numbers_without_axes():
    ragged = Ragged.from_rows([np.array([3, 4], np.int32), np.array([], np.int32)])
    found = ragged.padded(np.array([0, 1]), 3)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, [[3, 4, 3], [0, 0, 0]])


def test_padding_where_every_row_is_empty():
    ragged = Ragged(np.zeros((0, 2), np.float32), np.zeros(3, np.int64))
    np.testing.assert_array_equal(ragged.padded(np.array([1, 0]), 4), np.zeros((2, 4, 2)))


def test_parts_are_joined_in_order():
    parts = [Ragged.from_rows(ROWS[:1]), Ragged.from_rows(ROWS[1:2]), Ragged.from_rows(ROWS[2:])]
    joined, whole = Ragged.joined(parts), Ragged.from_rows(ROWS)
    np.testing.assert_array_equal(joined.values, whole.values)
    np.testing.assert_array_equal(joined.offsets, whole.offsets)


def test_vectors_count_texts_whatever_heads_there_are():
    ragged = Ragged.from_rows(ROWS)
    for vectors in (
        Vectors(dense=np.zeros((4, 3))),
        Vectors(tokens=ragged),
        Vectors(term_ids=ragged, term_weights=ragged),
    ):
        assert len(vectors) == 4
