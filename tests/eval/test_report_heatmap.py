from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.eval.report.heatmap import LEVELS, heat_map, shown_piece, shown_places
from jaxret.search.alignment import Alignment


def aligned(scores: np.ndarray, query: list[str] | None = None, skipped: int = 0) -> Alignment:
    s, t = scores.shape
    return Alignment(
        query_pieces=query or ["犬"] * s,
        passage_pieces=[f"p{i}" for i in range(t)],
        passage_spans=[(i, i + 1) for i in range(t)],
        passage_read=t + skipped,
        scores=scores.astype(np.float32),
        expansion=np.array([piece == "[MASK]" for piece in query or ["犬"] * s]),
        special=np.array([piece.startswith("[") for piece in query or ["犬"] * s]),
    )


@given(st.integers(1, 40), st.data())
def test_shown_are_the_chosen_their_neighbours_and_marks_for_the_rest(length: int, data: st.DataObject):
    chosen = data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=6))
    scores = np.zeros((len(chosen), length))
    scores[np.arange(len(chosen)), chosen] = 1
    shown = shown_places(aligned(scores))
    kept = [place for place in shown if place is not None]
    assert kept == sorted(set(kept))
    for place in chosen:
        assert {place - 1, place, place + 1} & set(range(length)) <= set(kept)
    assert all(a is not None or b is not None for a, b in pairwise(shown))
    # Between neighbours in the table: nothing is missing, or a mark says so.
    previous = -1
    for place in [*shown, length]:
        if place is None:
            previous = None
        elif previous is None:
            previous = place
        else:
            assert place == previous + 1
            previous = place


def test_shades_choice_and_sum():
    scores = np.array([[0.0, 1.0, 0.5], [-0.5, 0.25, 0.4]])
    found = heat_map(aligned(scores, ["犬", "[MASK]"]), "いろは", (-0.5, 1.0))
    assert found.columns == ["p0", "p1", "p2"]
    assert [row.chosen_piece for row in found.rows] == ["p1", "p2"]
    assert [row.chosen_column for row in found.rows] == [1, 2]
    assert found.rows[0].levels == [3, LEVELS - 1, 6] and found.rows[1].levels[0] == 0
    assert found.maxsim == pytest.approx(1.4)
    assert [row.expansion for row in found.rows] == [False, True]


def test_only_words_mark_the_text():
    scores = np.eye(4)
    found = heat_map(aligned(scores, ["[CLS]", "犬", "猫", "[MASK]"]), "いろはに", (0.0, 1.0))
    assert found.text == [("い", False), ("ろは", True), ("に", False)]
    assert not found.cut
    longer = heat_map(aligned(scores), "いろはにほ", (0.0, 1.0))
    assert "".join(part for part, _ in longer.text) == "いろはに" and longer.cut
    stopped = heat_map(aligned(scores, skipped=1), "いろはに。", (0.0, 1.0))
    assert stopped.text[-1] == ("。", False) and not stopped.cut


def test_pieces_lose_the_mark_of_a_space_unless_it_is_all():
    assert [shown_piece(piece) for piece in ("▁the", "▁", "犬", "<0xE3>")] == ["the", "␣", "犬", "<0xE3>"]
