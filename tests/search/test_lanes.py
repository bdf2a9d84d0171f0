import threading
from functools import partial

import pytest

from jaxret.search.lanes import in_lanes


def test_each_item_is_made_and_taken_once_in_order():
    both = threading.Barrier(2, timeout=10)

    def lane(items):
        first = next(items)
        both.wait()  # each lane has one
        return [first, *items]

    one, two = in_lanes(2, (partial(int, number) for number in range(100)), lane)
    assert sorted(one + two) == list(range(100))
    assert one == sorted(one) and two == sorted(two)


def test_a_lane_lets_go_of_what_its_item_was_made_from():
    class Source:
        alive = 0

        def __init__(self):
            Source.alive += 1

        def __del__(self):
            Source.alive -= 1

        def __call__(self):
            return "item"

    (alive,) = in_lanes(1, (Source() for _ in range(3)), lambda items: [Source.alive for _ in items])
    assert alive == [0, 0, 0]


def test_an_error_ends_the_other_lanes():
    both, taken, count = threading.Barrier(2, timeout=10), [], 10**6

    def lane(items):
        first = next(items)
        both.wait()
        if first == 0:
            raise RuntimeError("out of memory")
        taken.extend(items)

    with pytest.raises(RuntimeError, match="out of memory"):
        in_lanes(2, (partial(int, number) for number in range(count)), lane)
    assert len(taken) < count - 2


def test_an_error_of_a_maker_ends_the_lanes():
    with pytest.raises(ValueError, match="invalid literal"):
        in_lanes(2, (partial(int, word) for word in ["1", "2", "three"]), list)
