import itertools
import threading

import jax
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.runtime.mesh import batch_sharding, device_mesh
from jaxret.train.feed import fed

PATIENCE = 60  # seconds until a test gives up; none waits so long


class Slots:
    """Counts what is placed, and lets a test wait for the n-th."""

    def __init__(self):
        self.placed, self._changed = [], threading.Condition()

    def __call__(self, x):
        with self._changed:
            self.placed.append(x)
            self._changed.notify_all()
        return 10 * x

    def wait(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.placed) >= count, PATIENCE)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "feed"]


def failing_after(count):
    yield from range(count)
    raise ValueError("a bad row")


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_every_batch_in_order(depth):
    with fed(iter(range(50)), lambda x: 10 * x, depth) as feed:
        assert list(feed) == list(range(0, 500, 10))
        with pytest.raises(StopIteration):
            next(feed)


def test_batches_are_placed_ahead_and_no_more_than_asked_for():
    slots = Slots()
    with fed(itertools.count(), slots, 3) as feed:
        slots.wait(3)
        assert len(slots.placed) == 3
        assert [next(feed), next(feed)] == [0, 10]
        slots.wait(5)
        assert len(slots.placed) == 5
    assert slots.placed == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("depth", [1, 4])
def test_an_error_comes_in_the_place_of_its_batch_and_stays(depth):
    with fed(failing_after(3), lambda x: x, depth) as feed:
        assert [next(feed) for _ in range(3)] == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(ValueError, match="a bad row"):
                next(feed)


def test_an_error_of_placing():
    def place(x):
        if x == 2:
            raise InputError("batch 2", "has no rows", "Give some.")
        return x

    with fed(itertools.count(), place) as feed, pytest.raises(InputError, match="batch 2: has no rows"):
        for x in feed:
            assert x < 2


def test_the_consumer_may_stop_anywhere():
    """With a full queue, an empty one, before the first batch, in the middle of an error of its own, twice."""
    for used, depth in itertools.product((0, 1, 4), (1, 3)):
        slots = Slots()
        with fed(itertools.count(), slots, depth) as feed:
            for _ in range(used):
                next(feed)
            slots.wait(used)
        assert len(slots.placed) <= used + depth
        feed.close()
        with pytest.raises(StopIteration):
            next(feed)
    with pytest.raises(KeyError), fed(itertools.count(), lambda x: x) as feed:
        raise KeyError(next(feed))
    with fed(failing_after(0), lambda x: x):
        pass


def test_a_batch_that_is_being_made_is_waited_for():
    begun, goes_on = threading.Event(), threading.Event()

    def slow():
        begun.set()
        assert goes_on.wait(PATIENCE)
        yield 1

    feed = fed(slow(), lambda x: x)
    assert begun.wait(PATIENCE)
    closing = threading.Thread(target=feed.close)
    closing.start()
    goes_on.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()


def test_arrays_are_on_the_devices():
    sharding = batch_sharding(device_mesh())
    rows = [{"query": np.full((8, 2), n, np.int32)} for n in range(4)]

    def place(batch):
        return {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()}

    with fed(iter(rows), place) as feed:
        for expected, found in zip(rows, feed, strict=True):
            assert found["query"].sharding == sharding
            np.testing.assert_array_equal(found["query"], expected["query"])


def test_depth():
    with pytest.raises(InputError, match="depth: 0 places nothing ahead"):
        fed(iter([]), lambda x: x, 0)
