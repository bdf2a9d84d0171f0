from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.errors import InputError
from jaxret.search.hybrid import MODES, HybridSettings, hybrid_runs
from jaxret.search.runs import Run

DOCUMENTS = "abcdefgh"
SCORE = st.integers(-4, 4).map(lambda x: x / 4)
TABLES = st.fixed_dictionaries({mode: st.lists(SCORE, min_size=16, max_size=16) for mode in MODES})
WEIGHTS = st.sampled_from([(0.4, 0.2, 0.4), (1.0, 0.3, 0.0), (0.2, 0.8, 1.0), (0.0, 1.0, 2.0)])


def ranked(row):
    return sorted(row, key=lambda document: (np.float32(row[document]), document), reverse=True)


@given(TABLES, WEIGHTS, st.integers(1, 8), st.integers(1, 8))
def test_equals_a_loop(tables, weights, candidates, top_k):
    settings = HybridSettings(weights, max(candidates, top_k), min(candidates, top_k))
    scores = {
        mode: {q: dict(zip(DOCUMENTS, values[8 * n :], strict=False)) for n, q in enumerate(("q1", "q2"))}
        for mode, values in tables.items()
    }
    found = {
        mode: {q: {d: row[d] for d in ranked(row)[: settings.candidates]} for q, row in scores[mode].items()}
        for mode in ("dense", "lexical")
    }

    def score(run, mode):
        ids = [run.documents[index] for index in run.indices.tolist()]
        rows = [run.query_ids[row] for row in run.rows.tolist()]
        return np.array([scores[mode][q][d] for q, d in zip(rows, ids, strict=True)], np.float32)

    runs = hybrid_runs(*(Run.from_dict(found[mode]) for mode in ("dense", "lexical")), score, settings)
    for query in ("q1", "q2"):
        dense, lexical = found["dense"][query], found["lexical"][query]
        both = {d: weights[0] * dense.get(d, 0) + weights[1] * lexical.get(d, 0) for d in {**dense, **lexical}}
        first = ranked(both)[: settings.top_k]
        maxsim = {d: scores["multi_vector"][query][d] for d in first}
        total = {d: sum(w * scores[m][query][d] for w, m in zip(weights, MODES, strict=True)) for d in first}
        for name, expected in (("dense_lexical", both), ("reranked", maxsim), ("hybrid", total)):
            row = runs[name].to_dict()[query]
            assert row == pytest.approx(expected, abs=1e-6), name
            assert list(row) == ranked(row), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (0.5, 0.5)}, "three"),
        ({"weights": (1.0, -1.0, 1.0)}, "0 and more"),
        ({"weights": (0.0, 0.0, 1.0)}, "not both 0"),
        ({"candidates": 10, "top_k": 11}, "11 documents.*10 candidates"),
        ({"top_k": 0}, "1 <= top_k"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        HybridSettings(**settings)
