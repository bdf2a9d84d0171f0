from pathlib import Path

import pytest

from jaxret.errors import InputError


def test_the_message_is_one_line_with_place_problem_and_fix():
    error = InputError(Path("corpus.jsonl"), 'no "text"', "Add it")
    assert str(error) == 'corpus.jsonl: no "text". Add it'
    assert (error.place, error.problem, error.fix) == ("corpus.jsonl", 'no "text"', "Add it")


def test_it_is_a_value_error():
    with pytest.raises(ValueError, match="k: 9 is too large"):
        raise InputError("k", "9 is too large", "Give 1 to 5.")
