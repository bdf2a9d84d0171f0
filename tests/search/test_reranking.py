"""A run ranked again equals a plain loop over its rows."""

import numpy as np
import pytest

from jaxret.data.beir import BeirFolder
from jaxret.errors import InputError
from jaxret.search.reranking import check_run, reranked
from jaxret.search.run_files import read_run, write_run
from jaxret.search.runs import Run


@pytest.fixture(scope="module")
def folder(beir_of_animals):
    return BeirFolder(beir_of_animals)


@pytest.fixture(scope="module")
def run(folder):
    """Rows of different lengths, one of them empty."""
    random = np.random.default_rng(0)
    sizes = dict(zip(folder.queries.ids[:6], (7, 3, 0, 10, 1, 4), strict=True))
    return Run.from_dict(
        {
            query: {name: float(random.normal()) for name in random.permutation(folder.corpus.ids)[:size].tolist()}
            for query, size in sizes.items()
        }
    )


def teacher(pair):
    return (hash_of(pair.query + pair.title + pair.text) % 97) - 40.0


def hash_of(text):
    return sum((place + 1) * ord(letter) for place, letter in enumerate(text))


@pytest.mark.parametrize("rest", ["keep", "drop"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_equals_a_plain_loop(folder, run, rest, batch_size, tmp_path):
    asked, done = [], []

    def scorer(pairs):
        asked.append(len(pairs))
        return np.array([teacher(pair) for pair in pairs], np.float32)

    found = reranked(run, folder, scorer, 4, rest, batch_size, done.append)
    assert sum(asked) == 4 + 3 + 0 + 4 + 1 + 4 and sum(done) == 6
    titles = dict(zip(folder.corpus.ids, zip(folder.corpus.titles, folder.corpus.texts, strict=True), strict=True))
    for query, row in run.to_dict().items():
        text = folder.queries.texts[folder.queries.row_of[query]]
        new = {name: hash_of(text + "".join(titles[name])) % 97 - 40.0 for name in list(row)[:4]}
        order = sorted(sorted(new, reverse=True), key=lambda name, new=new: -new[name])
        order += list(row)[4:] if rest == "keep" else []
        result = found.to_dict()[query]
        assert list(result) == order
        assert {name: result[name] for name in new} == new
    write_run(found, tmp_path / "run.trec")
    ranked = {query: list(row) for query, row in found.to_dict().items() if row}
    assert {query: list(row) for query, row in read_run(tmp_path / "run.trec").to_dict().items()} == ranked


def test_a_large_score_leaves_the_rest_in_order(folder, run):
    found = reranked(run, folder, lambda pairs: np.full(len(pairs), -3e7, np.float32), 2)
    for query, row in run.to_dict().items():
        assert list(found.to_dict()[query])[2:] == list(row)[2:]


def test_a_missing_score_is_an_error(folder, run):
    with pytest.raises(InputError, match=f"no score for query '{run.query_ids[0]}'"):
        reranked(run, folder, lambda pairs: np.full(len(pairs), np.nan, np.float32), 2)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({}, "holds no results"),
        ({"nobody": {"cat0": 1.0}}, "query 'nobody' is not in"),
        ({"qcat0": {"cat0": 1.0, "gnu": 0.5}}, "document 'gnu' is not in"),
    ],
)
def test_a_run_of_other_data(folder, results, message):
    with pytest.raises(InputError, match=message):
        check_run(Run.from_dict(results), folder)
