import signal
import threading

import pytest

from jaxret.train.interrupts import Interrupts, left


@pytest.mark.parametrize("one", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_the_next_one_is_the_programs_again(one):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with Interrupts() as interrupts:
        assert interrupts.asked(1) is None
        signal.raise_signal(one)
        assert interrupts.asked(1) == one
        assert {number: signal.getsignal(number) for number in before} == before
    assert {number: signal.getsignal(number) for number in before} == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            assert interrupts.asked(1) is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_the_handlers_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with Interrupts() as interrupts:
            seen.append((signal.getsignal(signal.SIGTERM), interrupts.asked(1)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


def test_sigterm_ends_the_program_well_and_sigint_interrupts_it():
    assert isinstance(left(signal.SIGINT), KeyboardInterrupt)
    assert isinstance(end := left(signal.SIGTERM), SystemExit) and end.code == 0
