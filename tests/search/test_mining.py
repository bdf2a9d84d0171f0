"""Which candidates become negatives, against a loop over them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.errors import InputError
from jaxret.search.mining import MiningSettings, Tally, Verdict, drawn, taught, verdicts

SCORES = st.integers(-4, 4).map(lambda n: n / 4)
LIMITS = st.none() | st.sampled_from([0.0, 0.25, 0.5, -0.25])


@st.composite
def queries(draw):
    """Ranked scores with what is known of each candidate, and settings."""
    scores = sorted(draw(st.lists(SCORES, max_size=8)), reverse=True)
    flags = [draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))) for _ in range(2)]
    first = draw(st.integers(1, 4))
    settings = MiningSettings(
        num_negatives=draw(st.integers(1, 3)),
        first_rank=first,
        last_rank=first + 9,
        margin=draw(LIMITS),
        relative_margin=draw(LIMITS),
        teacher_margin=draw(st.sampled_from([0.0, 0.25, -0.5])),
    )
    return scores, *flags, draw(SCORES | st.just(float("nan"))), settings


def expected(scores, relevant, copies, positive, settings):
    """The reasons one candidate at a time, as the issue states them."""
    reasons = []
    for rank, (score, is_relevant, is_copy) in enumerate(zip(scores, relevant, copies, strict=True), 1):
        if rank < settings.first_rank:
            reasons.append("BEFORE_WINDOW")
        elif is_relevant:
            reasons.append("POSITIVE")
        elif is_copy:
            reasons.append("COPY")
        elif positive != positive and (settings.margin, settings.relative_margin) != (None, None):
            reasons.append("POSITIVE_UNSCORED")
        elif settings.margin is not None and not score <= positive - settings.margin:
            reasons.append("MARGIN")
        elif settings.relative_margin is not None and not score <= positive - settings.relative_margin * abs(positive):
            reasons.append("RELATIVE_MARGIN")
        else:
            reasons.append("OPEN")
    return reasons


def found(scores, relevant, copies, positive, settings):
    flags = np.array(relevant, bool), np.array(copies, bool)
    return verdicts(np.array(scores, np.float32), *flags, positive, settings)


@given(queries())
def test_verdicts_equal_a_loop(query):
    assert [Verdict(code).name for code in found(*query).tolist()] == expected(*query)


@given(queries(), st.data())
def test_the_teacher_equals_a_loop(query, data):
    before = found(*query)
    opinions = data.draw(st.lists(SCORES | st.just(float("nan")), min_size=len(before), max_size=len(before)))
    positive = data.draw(SCORES | st.just(float("nan")))
    after = taught(before, np.array(opinions, np.float32), positive, query[-1])
    for code, opinion, result in zip(before.tolist(), opinions, after.tolist(), strict=True):
        if code != Verdict.OPEN:
            assert result == code
        elif opinion != opinion or positive != positive:
            assert result == Verdict.TEACHER_UNSCORED
        else:
            assert result == (Verdict.OPEN if opinion <= positive - query[-1].teacher_margin else Verdict.TEACHER)


@given(queries())
def test_the_best_ranked_are_taken(query):
    before, settings = found(*query), query[-1]
    after = drawn(before, "q", [f"d{place}" for place in range(len(before))], settings)
    still_open = [place for place, code in enumerate(before) if code == Verdict.OPEN]
    assert np.flatnonzero(after == Verdict.CHOSEN).tolist() == still_open[: settings.num_negatives]
    assert np.flatnonzero(after == Verdict.SPARE).tolist() == still_open[settings.num_negatives :]
    assert (after[before != Verdict.OPEN] == before[before != Verdict.OPEN]).all()


def test_random_choices_depend_on_seed_query_and_ids_alone():
    names = [f"d{number}" for number in range(50)]

    def choice(seed, query, documents):
        settings = MiningSettings(num_negatives=5, sampling="random", seed=seed)
        result = drawn(np.full(len(documents), Verdict.OPEN, np.int8), query, documents, settings)
        return {documents[place] for place in np.flatnonzero(result == Verdict.CHOSEN)}

    shuffled = random.Random(0).sample(names, len(names))
    assert choice(0, "q", names) == choice(0, "q", shuffled)
    assert len({frozenset(choice(seed, query, names)) for seed in range(5) for query in "qr"}) == 10
    taken = [name for seed in range(400) for name in choice(seed, "q", names)]
    counts = [taken.count(name) for name in names]  # 40 each on average, with a deviation of 6
    assert min(counts) > 15 and max(counts) < 70


def test_the_tally_names_what_a_query_lost_its_negatives_to():
    tally = Tally(num_negatives=2)
    fates = {
        "margin": [Verdict.POSITIVE, Verdict.MARGIN, Verdict.MARGIN, Verdict.CHOSEN],
        "no_results": [],
        "too_few_results": [Verdict.CHOSEN],
        "teacher": [Verdict.TEACHER],
        "": [Verdict.CHOSEN, Verdict.CHOSEN, Verdict.SPARE],
    }
    for codes in fates.values():
        tally.add(np.array(codes, np.int8))
    counts = tally.to_dict()
    assert counts["lost"] == dict.fromkeys([name for name in fates if name], 1)
    assert counts["queries"] == {"full": 1, "fewer": 2, "none": 2}
    assert {name: count for name, count in counts["candidates"].items() if count} == {
        "positive": 1,
        "margin": 2,
        "teacher": 1,
        "spare": 1,
        "chosen": 4,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_negatives": 0}, "num_negatives: 0"),
        ({"first_rank": 0}, "0-100 is no window"),
        ({"first_rank": 11, "last_rank": 10}, "11-10 is no window"),
        ({"sampling": "best"}, "unknown 'best'.*top, random"),
        ({"margin": float("nan")}, "margin: nan is not finite"),
        ({"relative_margin": float("inf")}, "relative_margin: inf"),
        ({"teacher_margin": float("nan")}, "teacher_margin: nan"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        MiningSettings(**settings)
