"""Mining a folder: what the queries get, against a script; batches change nothing; what is held stays small."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxret.data import stored_corpus
from jaxret.data.beir import BeirFolder
from jaxret.errors import InputError
from jaxret.runtime.checksums import HASHERS
from jaxret.runtime.mesh import device_mesh
from jaxret.search import corpus as corpus_module
from jaxret.search import exact, postings
from jaxret.search.bm25 import BM25
from jaxret.search.corpus import encode_corpus, passage_texts, store_ids
from jaxret.search.encode import TextEncoder
from jaxret.search.miner import Miner
from jaxret.search.mining import MiningSettings
from jaxret.search.rankers import BM25Ranker, ModelRanker, RunRanker
from jaxret.search.run_files import write_run
from jaxret.search.runs import Run

DATA = Path(__file__).parents[2] / "data"
HEADER = "query-id\tcorpus-id\tscore\n"


def folder_of(place: Path, documents: dict[str, str], queries: dict[str, str], **splits: dict) -> BeirFolder:
    (place / "qrels").mkdir(parents=True)
    for name, records in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in records.items()]
        (place / f"{name}.jsonl").write_text("".join(lines))
    for split, rows in splits.items():
        lines = [f"{query}\t{name}\t{grade}\n" for query, row in rows.items() for name, grade in row.items()]
        (place / f"qrels/{split}.tsv").write_text(HEADER + "".join(lines))
    return BeirFolder(place)


def mined(miner: Miner) -> dict[str, dict[str, float]]:
    return {group.query_id: {p.id: p.score for p in group.negatives} for group in miner()}


@pytest.fixture(scope="module")
def part_of_jaquad(tmp_path_factory) -> BeirFolder:
    """120 passages of JaQuAD and the training questions that they answer; five passages are there twice."""
    whole = BeirFolder(DATA / "jaquad")
    documents = dict(list(zip(whole.corpus.ids, whole.corpus.texts, strict=True))[:120])
    documents |= {f"copy-of-{name}": f" {documents[name]}\n" for name in list(documents)[:5]}
    rows = {query: row for query, row in whole.qrels("train").items() if row.keys() <= documents.keys()}
    queries = {query: whole.queries.texts[whole.queries.row_of[query]] for query in rows}
    return folder_of(tmp_path_factory.mktemp("mining") / "part", documents, queries, train=rows)


@pytest.fixture(scope="module")
def bm25(part_of_jaquad) -> BM25Ranker:
    return BM25Ranker(part_of_jaquad.corpus, "ja")


def by_a_script(folder: BeirFolder, first: int, last: int, margin: float, relative: float, count: int):
    """The negatives of every query, one query at a time over all documents."""
    corpus, ids = folder.corpus, store_ids(folder.corpus)
    index = BM25.build(passage_texts(corpus, " "), "ja")
    found = {}
    for query, row in folder.qrels("train").items():
        text = folder.queries.texts[folder.queries.row_of[query]]
        scores, positions = (column[0].tolist() for column in index.top_k([text], len(ids)))
        ranked = [(ids[position], score) for position, score in zip(positions, scores, strict=True) if position >= 0]
        positive = min(dict(ranked).get(name, 0.0) for name in row)
        answers = {corpus.texts[corpus.row_of[name]].strip() for name in row}
        kept = [
            (name, score)
            for name, score in ranked[first - 1 : last]
            if corpus.texts[corpus.row_of[name]].strip() not in answers
            and score <= positive - margin
            and score <= positive - relative * abs(positive)
        ]
        found[query] = dict(kept[:count])
    return found


def test_jaquad_equals_a_script(part_of_jaquad, bm25):
    settings = MiningSettings(3, 2, 40, margin=4.0, relative_margin=0.5)
    miner = Miner(part_of_jaquad, "train", bm25, settings)
    found = mined(miner)
    assert found == by_a_script(part_of_jaquad, 2, 40, 4.0, 0.5, 3)
    counts = miner.tally.to_dict()
    assert len(miner) == len(found) == sum(counts["queries"].values()) > 300
    sizes = [len(row) for row in found.values()]
    assert counts["queries"] == {
        "full": sizes.count(3),
        "fewer": len(sizes) - sizes.count(3) - sizes.count(0),
        "none": sizes.count(0),
    }
    assert counts["candidates"]["chosen"] == sum(sizes)
    for reason in ("before_window", "positive", "copy", "margin", "relative_margin", "spare"):
        assert counts["candidates"][reason] > 0, reason
    assert 0 < sum(counts["lost"].values()) == counts["queries"]["fewer"] + counts["queries"]["none"]


@pytest.mark.parametrize("sampling", ["top", "random"])
def test_batches_and_the_order_of_queries_change_nothing(part_of_jaquad, bm25, sampling, tmp_path):
    settings = MiningSettings(3, 2, 40, margin=0.5, sampling=sampling)
    found = mined(Miner(part_of_jaquad, "train", bm25, settings))
    assert mined(Miner(part_of_jaquad, "train", bm25, settings, batch_size=7)) == found
    rows = dict(reversed(part_of_jaquad.qrels("train").items()))
    queries = dict(zip(part_of_jaquad.queries.ids, part_of_jaquad.queries.texts, strict=True))
    documents = dict(zip(part_of_jaquad.corpus.ids, part_of_jaquad.corpus.texts, strict=True))
    backwards = folder_of(tmp_path / "backwards", documents, queries, train=rows)
    again = mined(Miner(backwards, "train", bm25, settings))
    assert again == found and list(again) == list(reversed(found))
    if sampling == "random":
        others = MiningSettings(3, 2, 40, margin=0.5, sampling=sampling, seed=1)
        assert mined(Miner(part_of_jaquad, "train", bm25, others)) != found


@pytest.fixture
def small(tmp_path) -> BeirFolder:
    documents = {name: f"text of {name}" for name in "abcdefg"} | {"A": "text  of a "}
    queries = {"q1": "one", "q2": "two", "q3": "three"}
    train = {"q1": {"a": 1, "b": 2, "c": 0}, "q2": {"d": 1}, "q3": {"c": 0}}
    return folder_of(tmp_path / "small", documents, queries, train=train, dev={"q1": {"e": 1}})


def ranker(tmp_path, results: dict, name: str = "run") -> RunRanker:
    write_run(Run.from_dict(results), tmp_path / f"{name}.trec")
    return RunRanker(tmp_path / f"{name}.trec")


Q1 = {"A": 9.0, "c": 8.0, "a": 7.0, "e": 6.0, "f": 5.0, "b": 4.0, "g": 3.5, "d": 1.0}


def test_relevant_in_any_split_and_copies_are_never_negatives(small, tmp_path):
    miner = Miner(small, "train", ranker(tmp_path, {"q1": Q1}), MiningSettings(9))
    assert mined(miner) == {"q1": {"c": 8.0, "f": 5.0, "g": 3.5, "d": 1.0}, "q2": {}}
    assert miner.tally.to_dict()["candidates"]["positive"] == 3 and miner.tally.candidates["copy"] == 1
    assert dict(miner.tally.lost) == {"positive": 1, "no_results": 1}


def test_margins_count_from_the_lowest_positive_of_the_split(small, tmp_path):
    source = ranker(tmp_path, {"q1": Q1})
    assert mined(Miner(small, "train", source, MiningSettings(9, margin=0.5)))["q1"] == {"g": 3.5, "d": 1.0}
    assert mined(Miner(small, "train", source, MiningSettings(9, relative_margin=0.2)))["q1"] == {"d": 1.0}


def test_a_positive_that_the_run_lacks_has_no_score(small, tmp_path):
    source = ranker(tmp_path, {"q1": Q1, "q2": {"a": 1.0, "b": 0.5}})
    miner = Miner(small, "train", source, MiningSettings(9, margin=0.0))
    assert mined(miner)["q2"] == {}
    assert miner.tally.candidates["positive_unscored"] == 2 and miner.tally.lost["positive_unscored"] == 1
    assert mined(Miner(small, "train", source, MiningSettings(9)))["q2"] == {"a": 1.0, "b": 0.5}


def test_a_positive_below_the_window_is_scored_by_the_system_itself(part_of_jaquad, bm25):
    """The lists are cut at rank 1 here, so that most thresholds are asked for."""
    found = mined(Miner(part_of_jaquad, "train", bm25, MiningSettings(1, 1, 1, margin=0.0)))
    assert found == by_a_script(part_of_jaquad, 1, 1, 0.0, -np.inf, 1)


def test_a_teacher_has_the_last_word_and_is_asked_of_nothing_else(small, tmp_path):
    opinions = {"f": 1.0, "g": 3.0, "d": 2.0, "a": 3.0, "b": 2.5}
    teacher, asked = ranker(tmp_path, {"q1": opinions}, "teacher"), []

    def scores(pairs):
        asked.extend((pair.query_id, pair.document_id) for pair in pairs)
        return teacher.scores(pairs)

    source = ranker(tmp_path, {"q1": Q1, "q2": {"a": 1.0}})
    miner = Miner(small, "train", source, MiningSettings(9, margin=-1.0, teacher_margin=0.5), scores)
    assert mined(miner) == {"q1": {"f": 5.0, "d": 1.0}, "q2": {}}
    assert asked == [("q1", "f"), ("q1", "g"), ("q1", "d"), ("q1", "a"), ("q1", "b")]
    unscored = Miner(small, "train", source, MiningSettings(9), scores)
    assert mined(unscored)["q1"] == {"f": 5.0, "d": 1.0}, "c has no score by the teacher"
    assert unscored.tally.candidates["teacher_unscored"] == 2 and unscored.tally.candidates["teacher"] == 1


def test_wrong_input(small, tmp_path):
    with pytest.raises(InputError, match="--from: document 'z' is not in"):
        mined(Miner(small, "train", ranker(tmp_path, {"q1": {"z": 1.0}}), MiningSettings(1)))
    with pytest.raises(InputError, match="starts at 9 of 8 documents"):
        Miner(small, "train", ranker(tmp_path, {"q1": {"a": 1.0}}), MiningSettings(1, 9, 10))


class Everything:
    """A ranker that returns the same documents for every query."""

    def __init__(self, documents: list[str]):
        self.documents, self.depths = documents, set()

    def top_k(self, ids, texts, k):
        self.depths.add((len(ids), k))
        positions = np.tile(np.arange(k), (len(ids), 1))
        return Run.from_top_k(ids, self.documents, positions, -positions.astype(np.float32))

    def scores(self, pairs):
        return np.zeros(len(pairs), np.float32)

    def facts(self):
        return {}


def test_what_is_held_depends_on_the_batch_and_the_window_alone(tmp_path):
    def peak(documents: int, queries: int, batch: int) -> int:
        corpus = {f"d{number:05d}": f"text {number}" for number in range(documents)}
        asked = {f"q{number}": "?" for number in range(queries)}
        rows = {query: {"d00000": 1} for query in asked}
        folder = folder_of(tmp_path / f"{documents}-{queries}-{batch}", corpus, asked, train=rows)
        ranker = Everything(folder.corpus.ids)
        miner = Miner(folder, "train", ranker, MiningSettings(2, 1, 50, margin=0.0), batch_size=batch)
        assert len(folder.corpus.row_of) == documents
        tracemalloc.start()
        assert sum(len(group.negatives) for group in miner()) == 2 * queries
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert max(ranker.depths) == (batch, 50)
        return held

    small = peak(100, 100, 10)
    assert peak(5_000, 100, 10) < 1.5 * small, "fifty times the corpus"
    assert peak(100, 1_000, 10) < 1.5 * small, "ten times the queries"
    assert peak(100, 100, 100) > 3 * small, "the measure sees what a batch holds"


@pytest.mark.parametrize("system", ["bm25", "model"])
def test_memory_does_not_grow_with_the_corpus(tmp_path, monkeypatch, model, random_params, system):
    monkeypatch.setattr(stored_corpus, "SORTED_AT_ONCE", 200)
    monkeypatch.setattr(postings, "PART_TERMS", 1600)
    monkeypatch.setattr(corpus_module, "SHARD_DOCUMENTS", 400)
    monkeypatch.setattr(exact, "fits", lambda *_: False)
    mesh = device_mesh((1, 1, 1), jax.devices()[:1])
    encoder = TextEncoder(model, random_params(model.abstract_params()), mesh)

    def peak(documents: int, name: str) -> int:
        words = ("cat", "dog", "owl", "hen", "bee", "ant", "fox")
        texts = {f"d{n:05d}": " ".join(words[n * step % 7] for step in (1, 2, 3, 5)) for n in range(documents)}
        texts["d00000"] = "the only one of its kind"
        asked = {f"q{n}": words[n % 7] for n in range(20)}
        folder_of(tmp_path / name, texts, asked, train={query: {"d00000": 1} for query in asked})
        tracemalloc.start()
        scratch = tmp_path / f"{name}-scratch"
        folder = BeirFolder(tmp_path / name, scratch=scratch)
        if system == "bm25":
            ranker = BM25Ranker(folder.corpus, "en", scratch / "ranker")
        else:
            encode_corpus(encoder, folder.corpus, scratch / "ranker")
            ranker = ModelRanker(encoder, "dense", folder.corpus, scratch / "ranker")
        groups = list(Miner(folder, "train", ranker, MiningSettings(2, 1, 20))())
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(len(group.negatives) for group in groups) == 40
        return held

    peak(100, "first")  # compiles, imports
    small, large = peak(400, "small"), peak(2_000, "large")
    assert large < 1.25 * small + HASHERS * 2**18  # a buffer for each file that is being hashed
