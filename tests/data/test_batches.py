import itertools

import numpy as np
import pytest

from jaxret.data.batches import training_batches
from jaxret.data.beir import BeirFolder
from jaxret.data.tasks import Source
from jaxret.data.text import TextConfig, padded, passage_ids, passage_text, query_ids
from jaxret.data.tfds_beir import passage_key
from jaxret.errors import InputError

TEXT = TextConfig(query_max_len=32, passage_max_len=48)


@pytest.fixture
def batches(vocabulary, tmp_path):
    def make(folders, count, *, rates=(1.0, 1.0), batch=12, group=3, seed=0, **place):
        sources = [Source(folder, rate=rate) for folder, rate in zip(folders, rates, strict=False)]
        iterator = training_batches(
            sources,
            vocabulary,
            TEXT,
            global_batch_size=batch,
            train_group_size=group,
            seed=seed,
            cache_dir=tmp_path / "cache",
            **place,
        )
        return list(itertools.islice(iterator, count))

    return make


def same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


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
        }
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


def test_wrong_sizes(beir_folder, batches):
    path = beir_folder()
    for place, message in [
        ({"process_count": 5}, "global_batch_size: 12 cannot be divided among 5 processes.*multiple of 5"),
        ({"batch": 0}, "global_batch_size: 0 cannot be divided"),
        ({"process_index": 2, "process_count": 2}, "process_index: 2 is not one of 2"),
        ({"seed": -1}, "seed: -1 is negative"),
        ({"start": -1}, "start: -1 is negative"),
        ({"group": 2}, "query 'q1' of 'train' has no negatives"),
    ]:
        with pytest.raises(InputError, match=message):
            batches([path], 1, **{"group": 1, **place})
    with pytest.raises(InputError, match="nothing to train on"):
        batches([], 1)
