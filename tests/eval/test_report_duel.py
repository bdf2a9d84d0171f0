import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxret.eval.report.duel import duel
from jaxret.eval.report.results import PerQuery, System

SYSTEM, BASELINE = (System(name, {}, {}, {}) for name in ("multi_vector", "bm25"))
RANK = st.none() | st.integers(1, 14)


def side(system: System, ranks: list[int | None]) -> PerQuery:
    rankings = {}
    for i, rank in enumerate(ranks):
        documents = [f"other{j}" for j in range(14)]
        if rank is not None:
            documents[rank - 1] = f"d{i}"
        rankings[f"q{i:02}"] = documents
    gains = {f"q{i:02}": 1 / rank if rank is not None and rank <= 10 else 0.0 for i, rank in enumerate(ranks)}
    return PerQuery(system, gains, rankings)


@settings(max_examples=25)
@given(st.lists(st.tuples(RANK, RANK), min_size=1, max_size=12))
def test_equals_a_plain_count(pairs: list[tuple[int | None, int | None]]):
    system, baseline = (list(column) for column in zip(*pairs, strict=True))
    qrels = {f"q{i:02}": {f"d{i}": 1, "other13": 0} for i in range(len(pairs))}
    found = duel(side(SYSTEM, system), side(BASELINE, baseline), qrels)

    def value(rank: int | None) -> float:
        return 1 / rank if rank is not None and rank <= 10 else 0.0

    gains = [value(a) - value(b) for a, b in pairs]
    assert len(found.wins) == sum(gain > 0 for gain in gains)
    assert len(found.losses) == sum(gain < 0 for gain in gains)
    assert found.ties == sum(gain == 0 for gain in gains)
    assert found.paired.mean == pytest.approx(sum(gains) / len(gains))
    assert found.paired.low <= found.paired.high
    for outcome in found.outcomes:
        i = int(outcome.query_id[1:])
        assert outcome.ranks == pairs[i]
        assert outcome.document == f"d{i}"
    assert [o.gain for o in found.wins] == sorted((o.gain for o in found.wins), reverse=True)
    assert [o.gain for o in found.losses] == sorted(o.gain for o in found.losses)
    assert sum(count for _, row in found.rank_table() for count in row) == len(pairs)


def test_ties_of_gain_go_to_the_farther_fall_then_to_the_id():
    qrels = {f"q{i:02}": {f"d{i}": 1} for i in range(4)}
    found = duel(side(SYSTEM, [1, 1, 1, 1]), side(BASELINE, [11, None, 11, 13]), qrels)
    assert [o.query_id for o in found.wins] == ["q01", "q03", "q00", "q02"]
    lost = duel(side(SYSTEM, [11, None, 12]), side(BASELINE, [1, 1, 1]), dict(list(qrels.items())[:3]))
    assert [o.query_id for o in lost.losses] == ["q01", "q02", "q00"]


def test_rank_table_has_the_baseline_down_and_the_system_across():
    qrels = {f"q{i:02}": {f"d{i}": 1} for i in range(3)}
    table = dict(duel(side(SYSTEM, [1, 3, None]), side(BASELINE, [12, 12, 10]), qrels).rank_table())
    assert table["after 10"] == [1, 1, 0, 0, 0]
    assert table["4–10"] == [0, 0, 0, 0, 1]


def test_the_better_ranked_of_several_relevant_documents_is_shown():
    qrels = {"q": {"a": 1, "b": 3}}
    one = PerQuery(SYSTEM, {"q": 0.5}, {"q": ["x", "a"]})
    two = PerQuery(BASELINE, {"q": 0.2}, {"q": ["x", "y", "b"]})
    outcome = duel(one, two, qrels).outcomes[0]
    assert (outcome.document, outcome.ranks, outcome.first) == ("a", (2, 3), "x")
    neither = duel(PerQuery(SYSTEM, {"q": 0.0}, {}), PerQuery(BASELINE, {"q": 0.0}, {}), qrels).outcomes[0]
    assert (neither.document, neither.ranks, neither.first) == ("b", (None, None), None)
