import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from jaxret.data.beir import BeirFolder
from jaxret.data.group_tables import passage_key
from jaxret.data.tasks import GroupFile, Source
from jaxret.data.text import padded, passage_ids, passage_text, query_ids
from jaxret.errors import InputError
from tests.data.conftest import HEADER, TEXT, same


def test_every_query_with_its_passages_once_an_epoch(slice_of_demo, batches, vocabulary):
    """Against the folder itself, read and encoded the way search does it."""
    path = slice_of_demo(12, 4)
    folder = BeirFolder(path)
    queries = {text: identifier for identifier, text in zip(folder.queries.ids, folder.queries.texts, strict=True)}
    rows = {tuple(query_ids(vocabulary, TEXT, [text])[0]): queries[text] for text in queries}
    assert len(rows) == len(queries)

    def ids(document):
        row = folder.corpus.row_of[document]
        text = passage_text(folder.corpus.titles[row], folder.corpus.texts[row], " ")
        return padded(passage_ids(vocabulary, TEXT, [text]), 48)[0].tolist()

    def key(document):
        row = folder.corpus.row_of[document]
        return passage_key(folder.corpus.titles[row], folder.corpus.texts[row])

    seen = []
    for batch in batches([path], len(queries) // 4 * 2, batch=4):
        assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
            "query": ((4, 32), np.int32),
            "passage": ((4, 3, 48), np.int32),
            "passage_key": ((4, 3), np.int32),
            "positive_keys": ((4, 1), np.int32),
            "language": ((4,), np.int32),
        }
        np.testing.assert_array_equal(batch["positive_keys"], batch["passage_key"][:, :1])
        for query, passages, keys in zip(batch["query"], batch["passage"], batch["passage_key"], strict=True):
            identifier = rows[tuple(query.tolist())]
            seen.append(identifier)
            by_key = {key(document): document for document in folder.corpus.ids}
            positive, *negatives = [by_key[int(each)] for each in keys]
            assert positive in folder.qrels("train")[identifier]
            assert len(set(negatives)) == 2 and set(negatives) <= set(folder.negatives[identifier])
            assert passages.tolist() == [ids(document) for document in (positive, *negatives)]
    epochs = [seen[: len(queries)], seen[len(queries) : 2 * len(queries)]]
    assert sorted(epochs[0]) == sorted(queries.values()) and epochs[0] != folder.queries.ids
    assert not set(epochs[1]) - set(epochs[0]) and epochs[1] != epochs[0][: len(epochs[1])]


def test_the_seed_fixes_everything(slice_of_demo, batches):
    path = slice_of_demo(12, 4)
    same(batches([path], 6), batches([path], 6))
    assert batches([path], 1, seed=1)[0]["query"].tolist() != batches([path], 1)[0]["query"].tolist()


@pytest.mark.parametrize("two_folders", [False, True])
def test_resumes_exactly(slice_of_demo, batches, two_folders):
    folders = [slice_of_demo(12, 4), slice_of_demo(5, 4, "other")][: 1 + two_folders]
    whole = batches(folders, 14, rates=(1.0, 0.4))
    for start in (1, 7):
        same(batches(folders, 14 - start, rates=(1.0, 0.4), start=start), whole[start:])


@pytest.mark.parametrize("two_folders", [False, True])
def test_processes_have_blocks_of_the_same_batches(slice_of_demo, batches, two_folders):
    folders = [slice_of_demo(12, 4), slice_of_demo(5, 4, "other")][: 1 + two_folders]
    whole = batches(folders, 6, start=3)
    parts = [batches(folders, 6, start=3, process_index=p, process_count=3) for p in range(3)]
    same(
        [{name: np.concatenate([part[name] for part in row]) for name in row[0]} for row in zip(*parts, strict=True)],
        whole,
    )


def test_rates_mix_the_folders(slice_of_demo, batches):
    small, large = slice_of_demo(3, 2, "small"), slice_of_demo(20, 2, "large")
    both = batches([small, large], 40, rates=(3.0, 1.0), group=1)
    alone = set(
        np.concatenate([batch["query"] for batch in batches([small], 5, group=1)]).view("S128").ravel().tolist()
    )
    drawn = np.concatenate([batch["query"] for batch in both]).view("S128").ravel().tolist()
    share = np.mean([query in alone for query in drawn])
    assert 0.75 < share < 0.88, "3/4 and the few of the large folder that are in the small one as well"


def test_a_single_passage_needs_no_negatives(slice_of_demo, batches):
    assert batches([slice_of_demo(6, 0)], 1, group=1)[0]["passage"].shape == (12, 1, 48)


def test_a_batch_may_be_larger_than_the_folder(beir_folder, batches):
    (batch,) = batches([beir_folder()], 1, batch=7, group=1)
    assert sorted(np.unique(batch["passage_key"], return_counts=True)[1]) in ([3, 4],)


def test_one_of_several_positives_is_drawn_anew_each_epoch(scored_file, batches):
    """Each query in 40 epochs: both its positives come about as often, and a draw tells nothing of the next."""
    number_of = {passage_key("", f"p {p}"): p for p in range(300)}
    drawn = {}
    for batch in batches([GroupFile(scored_file())], 40, batch=8, group=1):
        positives = [number_of[key] for key in batch["passage_key"][:, 0].tolist()]
        assert sorted(positive % 100 for positive in positives) == list(range(8)), "every query once an epoch"
        for positive in positives:
            drawn.setdefault(positive % 100, []).append(positive >= 100)
    assert np.mean([*drawn.values()]) == pytest.approx(0.5, abs=0.1)
    again = [a == b for column in drawn.values() for a, b in itertools.pairwise(column)]
    assert np.mean(again) == pytest.approx(0.5, abs=0.1)
    assert len({tuple(column) for column in drawn.values()}) == 8


def test_wrong_sizes(beir_folder, batches):
    path = beir_folder()
    for place, message in [
        ({"process_count": 5}, "global_batch_size: 12 cannot be divided among 5 processes.*multiple of 5"),
        ({"batch": 0}, "global_batch_size: 0 cannot be divided"),
        ({"process_index": 2, "process_count": 2}, "process_index: 2 is not one of 2"),
        ({"seed": -1}, "seed: -1 is negative"),
        ({"start": -1}, "start: -1 is negative"),
        ({"group": 2}, "query 'q1' has no negatives"),
    ]:
        with pytest.raises(InputError, match=message):
            batches([path], 1, **{"group": 1, **place})
    with pytest.raises(InputError, match="nothing to train on"):
        batches([], 1)


@pytest.fixture
def scored_file(tmp_path):
    """Eight queries; passage "p<i>" has the score i / 4, and query i the positives p<i> and p<100 + i>."""

    def write(name="groups.jsonl", **changes):
        rows = []
        for i in range(8):
            pos, neg = [i, 100 + i], [200 + 10 * i + j for j in range(3)]
            row = {"query": f"question {i}?", "pos": [f"p {p}" for p in pos], "neg": [f"p {p}" for p in neg]}
            rows.append(row | {"pos_scores": [p / 4 for p in pos], "neg_scores": [p / 4 for p in neg]} | changes)
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    return write


def test_scores_follow_their_passages(scored_file, batches):
    """Every passage of every batch, against the file: n larger than the negatives there are, so that they repeat."""
    number_of = {passage_key("", f"p {p}"): p for p in range(300)}
    seen = set()
    for batch in batches([GroupFile(scored_file(), language=3)], 6, batch=4, group=6, teacher_scores=True):
        assert batch["teacher_scores"].dtype == np.float32 and batch["teacher_scores"].shape == (4, 6)
        numbers = np.vectorize(number_of.get)(batch["passage_key"])
        np.testing.assert_array_equal(batch["teacher_scores"], numbers / 4)
        np.testing.assert_array_equal(numbers[:, 0] % 100 * 10 + 200, numbers[:, 1:].min(1))
        known = np.vectorize(number_of.get)(batch["positive_keys"])
        np.testing.assert_array_equal(known, numbers[:, :1] % 100 + [0, 100])
        assert batch["language"].tolist() == [3] * 4
        seen |= set(numbers[:, 0].tolist())
    assert len(seen) > 8, "both positives of a query are drawn"


def test_a_folder_and_a_file_of_the_same_passages(slice_of_demo, batches, tmp_path):
    """Texts have the same keys in both, with their titles or with title and text as one."""
    path = slice_of_demo(6, 2)
    folder = BeirFolder(path)
    rows = []
    for query, document in ((query, next(iter(row))) for query, row in folder.qrels("train").items()):
        text = passage_text(
            *(c[folder.corpus.row_of[document]] for c in (folder.corpus.titles, folder.corpus.texts)), " "
        )
        rows.append({"query": folder.queries.texts[folder.queries.row_of[query]], "pos": [text], "neg": []})
    (tmp_path / "groups.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = GroupFile(tmp_path / "groups.jsonl", language=1)
    keys, passages = ({}, {}), ({}, {})
    for batch in batches([Source(path), file], 8, batch=12, group=1):
        for query, passage, key, language in zip(
            batch["query"], batch["passage"], batch["passage_key"], batch["language"], strict=True
        ):
            keys[language][query.tobytes()], passages[language][query.tobytes()] = key.tolist(), passage.tolist()
    both = keys[0].keys() & keys[1].keys()
    assert len(both) > 10
    assert all(keys[0][query] == keys[1][query] and passages[0][query] == passages[1][query] for query in both)


def test_colbert_triples(beir_folder, batches, tmp_path):
    (tmp_path / "triples.jsonl").write_text('["q1", ["d1", 2.5], ["d3", -1]]\n["q1", ["d2", 1], ["d3", -2]]\n')
    file = GroupFile(tmp_path / "triples.jsonl", beir_folder())
    (batch,) = batches([file], 1, batch=2, group=2, teacher_scores=True)
    one, two, three = (passage_key(*text) for text in (("T", "one"), ("", "two"), ("", "three")))
    rows = sorted(zip(batch["passage_key"].tolist(), batch["teacher_scores"].tolist(), strict=True))
    assert rows == sorted([([one, three], [2.5, -1.0]), ([two, three], [1.0, -2.0])])
    assert sorted(batch["positive_keys"].tolist()[0]) == sorted([one, two])


def test_all_relevant_passages_are_known(beir_folder, batches):
    """Rows are filled up with -1 to the most that a query of any source has."""
    one = beir_folder("one", train=[HEADER, "q1\td1\t1", "q1\td2\t2", "q1\td3\t1", "q2\td2\t1", "q2\td3\t0"])
    two = beir_folder("two")
    key = {"d1": passage_key("T", "one"), "d2": passage_key("", "two"), "d3": passage_key("", "three")}
    rows = {tuple(sorted(row)) for batch in batches([one, two], 4, group=1) for row in batch["positive_keys"].tolist()}
    assert rows == {tuple(sorted(key.values())), *((-1, -1, k) for k in (key["d1"], key["d2"]))}


def test_skipping_queries_without_negatives(beir_folder, batches, caplog):
    path = beir_folder(negatives=[HEADER, "q2\td3\t0"])
    (batch,) = batches([path], 1, batch=4, group=2, missing_negatives="skip")
    assert np.unique(batch["passage_key"][:, 0]).tolist() == [passage_key("", "two")]
    assert "1 of 2 queries have no negatives and are left out" in caplog.text
    (batch,) = batches([path], 1, batch=4, group=1, missing_negatives="skip")
    assert len(np.unique(batch["passage_key"])) == 2, "none is needed for a single passage"
    with pytest.raises(InputError, match="no query has negatives"):
        batches([beir_folder("none")], 1, group=2, missing_negatives="skip")


def test_perturbed_positives(slice_of_demo, batches, vocabulary):
    """In the places of missing negatives, other ids than the positive's even where it is cut off, and other keys."""
    path = slice_of_demo(12, 0)
    found = batches([path], 4, missing_negatives="perturb")
    for batch in found:
        for column in (1, 2):
            assert (batch["passage"][:, column] != batch["passage"][:, 0]).any(1).all()
            assert (batch["passage_key"][:, column] != batch["passage_key"][:, 0]).all()
        pieces = [set(row.ravel().tolist()) for row in batch["passage"][:, 1]]
        whole = [set(row.tolist()) for row in batch["passage"][:, 0]]
        share = [len(one & other) / len(one) for one, other in zip(pieces, whole, strict=True)]
        assert np.mean(share) > 0.8, "made of the positive"
    assert any((batch["passage"][:, 1] != batch["passage"][:, 2]).any() for batch in found)
    same(found[2:], batches([path], 2, missing_negatives="perturb", start=2))
    real = batches([slice_of_demo(12, 4, "with")], 2)
    same(real, batches([slice_of_demo(12, 4, "with too")], 2, missing_negatives="perturb"))


def test_wrong_choices(beir_folder, scored_file, batches):
    plain = scored_file("plain.jsonl", neg_scores=None)
    for source, choice, message in [
        (
            beir_folder(),
            {"missing_negatives": "drop"},
            "missing_negatives: unknown choice 'drop'. Choose from error, skip",
        ),
        (
            beir_folder(),
            {"teacher_scores": True},
            "set: a BEIR folder has no teacher's scores.*jaxret score.*GroupFile",
        ),
        (GroupFile(plain), {"teacher_scores": True}, r"plain.jsonl:1: a passage has no teacher's score.*jaxret score"),
        (
            GroupFile(scored_file()),
            {"teacher_scores": True, "missing_negatives": "perturb"},
            "perturbed passages have no teacher's scores",
        ),
        (GroupFile(scored_file("no.jsonl", neg=[], neg_scores=[])), {"group": 2}, "no.jsonl:1: query 'question 0"),
    ]:
        with pytest.raises(InputError, match=message):
            batches([source], 1, **{"group": 1, **choice})


OPEN = """
import sys
from jaxret.data.batches import Source, training_batches
from jaxret.data.text import TextConfig
from jaxret.data.tokenizer import Tokenizer
folder, vocabulary, cache = sys.argv[1:]
settings = {"global_batch_size": 64, "train_group_size": 1, "cache_dir": cache}
tokenizer = Tokenizer.load(vocabulary)
streams = [training_batches([Source(folder)], tokenizer, TextConfig(), seed=seed, **settings) for seed in range(4)]
print(sum(len(next(stream)["query"]) for stream in streams))
"""


def test_a_program_may_end_with_open_streams(slice_of_demo, vocabulary, tmp_path):
    vocabulary.save(tmp_path / "vocabulary.model")
    arguments = [slice_of_demo(12, 0), tmp_path / "vocabulary.model", tmp_path / "cache"]
    done = subprocess.run([sys.executable, "-c", OPEN, *arguments], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "256\n"), done.stderr[-1000:]
