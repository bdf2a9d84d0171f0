"""An alignment as a table of coloured cells: the passage tokens that were chosen, and their neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from jaxret.search.alignment import Alignment

LEVELS = 10  # shades
NEIGHBOURS = 1


@dataclass(frozen=True)
class Row:
    """A query token: its piece, a shade for each column (None where tokens are left out), its choice and its score."""

    piece: str
    expansion: bool
    levels: list[int | None]
    chosen_column: int
    chosen_piece: str
    score: float


@dataclass(frozen=True)
class HeatMap:
    """What the page shows of an alignment.

    Attributes:
      columns: pieces of the passage, None for a stretch that is left out.
      rows: one a query token.
      maxsim: the score of the pair.
      text: the passage as (part, whether a word of the query chose it); markers and [MASK]s do not count.
      cut: whether the model read only the passage's beginning, which is all that `text` holds.
    """

    columns: list[str | None]
    rows: list[Row]
    maxsim: float
    text: list[tuple[str, bool]]
    cut: bool


def heat_map(alignment: Alignment, passage: str, bounds: tuple[float, float]) -> HeatMap:
    """The heat map of an alignment; the shades run from the lower to the upper of the bounds."""
    low, high = bounds
    unit = (alignment.scores - low) / max(high - low, 1e-9)
    shades = (unit.clip(0, 1) * (LEVELS - 1)).round().astype(int).tolist()
    places = shown_places(alignment)
    rows = [
        Row(
            piece=shown_piece(piece),
            expansion=bool(alignment.expansion[s]),
            levels=[None if place is None else shades[s][place] for place in places],
            chosen_column=places.index(int(alignment.chosen[s])),
            chosen_piece=shown_piece(alignment.passage_pieces[alignment.chosen[s]]),
            score=float(alignment.best[s]),
        )
        for s, piece in enumerate(alignment.query_pieces)
    ]
    columns = [None if place is None else shown_piece(alignment.passage_pieces[place]) for place in places]
    end = alignment.passage_read
    return HeatMap(columns, rows, alignment.maxsim, _marked(alignment, passage[:end]), end < len(passage))


def shown_places(alignment: Alignment) -> list[int | None]:
    """Passage tokens that some query token chose, with their neighbours; None for each stretch left out."""
    last = len(alignment.passage_pieces) - 1
    near = {place + step for place in alignment.chosen.tolist() for step in range(-NEIGHBOURS, NEIGHBOURS + 1)}
    shown: list[int | None] = []
    following = 0
    for place in sorted(place for place in near if 0 <= place <= last):
        # A lone token is as narrow as the mark that would stand for it.
        shown += [following] if place - following == 1 else [None] if place > following else []
        shown.append(place)
        following = place + 1
    return shown if following > last else [*shown, last] if following == last else [*shown, None]


def shown_piece(piece: str) -> str:
    """A piece without its mark of a space, unless it is nothing else."""
    return piece.replace("▁", " ").strip() or "␣"


def _marked(alignment: Alignment, text: str) -> list[tuple[str, bool]]:
    """The text in parts, alternately unmarked and marked."""
    marks = [False] * len(text)
    for special, place in zip(alignment.special.tolist(), alignment.chosen.tolist(), strict=True):
        if not special:
            begin, end = alignment.passage_spans[place]
            marks[begin:end] = [True] * (end - begin)
    starts = [i for i in range(len(text)) if i == 0 or marks[i] != marks[i - 1]]
    return [(text[start:stop], marks[start]) for start, stop in zip(starts, [*starts[1:], len(text)], strict=True)]
