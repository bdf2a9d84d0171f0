"""Pairs in one row, against a plain loop; and batches of them, against the texts that they were made of."""

import itertools
from functools import partial

import numpy as np
import pytest

from jaxret.data.batches import Bucket, training_batches
from jaxret.data.pair_batches import pair_batches
from jaxret.data.pairs import TRUNCATIONS, PairConfig, kept_sizes, pair_rows
from jaxret.data.pretrained_tokenizer import PretrainedTokenizer
from jaxret.data.tasks import GroupFile
from jaxret.data.text_tokenizer import PairFrame
from jaxret.data.tokenizer import CLS, SEP
from jaxret.errors import InputError
from tests.conftest import DOCUMENTS
from tests.parity.cases import Case

FRAME = PairFrame(((2, 0),), ((3, 0), (3, 0)), ((3, 1),), (0, 1))
PYTHONS = PairFrame(*(getattr(FRAME, name) for name in ("before", "between", "after", "types")), odd_to_first=True)


def one_by_one(first, second, room, frame, truncation):
    """The last id of the longer text goes, again and again; of texts equally long, of the one whose turn it is."""
    stays_longer = frame.odd_to_first or first > second
    while first + second > room:
        if truncation == "only_second" and second:
            second -= 1
        elif truncation == "only_second" or first > second or (first == second and not stays_longer):
            first -= 1
        else:
            second -= 1
    return first, second


@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize("frame", [FRAME, PYTHONS], ids=["rust", "python"])
def test_what_stays_of_two_long_texts(frame, truncation):
    for first, second, length in itertools.product(range(9), range(9), range(6, 14)):
        expected = one_by_one(first, second, length - frame.size, frame, truncation)
        assert kept_sizes(frame, PairConfig(length, truncation), first, second) == expected, (first, second, length)


def test_rows_of_our_own_vocabulary(tokenizer):
    queries, passages = ["where is the cat?", "owl"], ["The cat sleeps.", "The owl sleeps by the river."]
    config = PairConfig(24, "only_second")
    for row, query, passage in zip(pair_rows(tokenizer, config, queries, passages), queries, passages, strict=True):
        first, second = tokenizer.encode([query, passage])
        whole = [*[CLS, *first, SEP, *second][:23], SEP]
        assert row.ids == whole and len(first) < 20
        assert row.types == [0] * (len(first) + 2) + [1] * (len(whole) - len(first) - 2)


def test_a_side_is_cut_off_at_the_left():
    tokenizer = PretrainedTokenizer.load(Case("bert").folder)
    backend = tokenizer._backend
    row = pair_rows(tokenizer, PairConfig(12), ["cat"], ["a cat sleeps under a tree"])[0]
    backend.truncation_side = "left"
    turned = pair_rows(tokenizer, PairConfig(12), ["cat"], ["a cat sleeps under a tree"])[0]
    (passage,) = tokenizer.encode(["a cat sleeps under a tree"])
    kept = 12 - 3 - len(tokenizer.encode(["cat"])[0])
    assert row.ids[-1 - kept : -1] == passage[:kept] and turned.ids[-1 - kept : -1] == passage[-kept:]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"truncation": "first"}, "truncation: unknown 'first'.*longest_first, only_second"),
        ({"max_len": True}, "max_len: True is not of type int"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        PairConfig(**settings)


def test_a_row_without_room(tokenizer):
    with pytest.raises(InputError, match=r"max_len: 4 is too short\. Give at least 5"):
        pair_rows(tokenizer, PairConfig(4), ["a"], ["b"])


@pytest.mark.parametrize("own", [True, False], ids=["own", "roberta"])
def test_batches_hold_the_rows_of_their_texts(own, tokenizer, groups_of_animals, beir_of_animals, tmp_path):
    chosen = tokenizer if own else PretrainedTokenizer.load(Case("roberta").folder)
    config, source = PairConfig(48, title_separator=": "), GroupFile(groups_of_animals, beir_of_animals)
    groups = partial(training_batches, sources=[source], train_group_size=3)
    place = {"global_batch_size": 8, "seed": 3, "cache_dir": tmp_path, "process_index": 0, "process_count": 1}
    batch = next(pair_batches(groups, chosen, config, start=1, **place))
    assert batch["pair"].shape == (8, 3, 48) and ("pair_types" in batch) == own
    assert {"passage_key", "positive_keys"} <= batch.keys() and not {"query", "passage"} & batch.keys()
    relevant = {}
    for name, title, text in DOCUMENTS:
        row = pair_rows(chosen, config, [f"where is the {title}? {name}"], [f"{title}: {text}"])[0]
        relevant[tuple(row.ids)] = (name, row.types)
    for number, group in enumerate(batch["pair"]):
        rows = [tuple(row[row >= 0].tolist()) for row in group]
        _, types = relevant[rows[0]]
        assert not set(rows[1:]) & relevant.keys()
        if own:
            assert batch["pair_types"][number, 0, : len(types)].tolist() == types
            assert not batch["pair_types"][number, 0, len(types) :].any()
    again = next(itertools.islice(pair_batches(groups, chosen, config, start=0, **place), 1, None))
    np.testing.assert_array_equal(again["pair"], batch["pair"])


@pytest.mark.parametrize("own", [True, False], ids=["own", "roberta"])
def test_pairs_of_buckets_are_as_short_as_their_bucket_allows(
    own, tokenizer, groups_of_animals, beir_of_animals, tmp_path
):
    """The same pairs as without buckets, cut nowhere."""
    chosen = tokenizer if own else PretrainedTokenizer.load(Case("roberta").folder)
    source, edges = GroupFile(groups_of_animals, beir_of_animals), (40, 90)
    place = {"global_batch_size": 8, "seed": 3, "cache_dir": tmp_path, "process_index": 0, "process_count": 1}

    def batches(count, **settings):
        groups = partial(training_batches, sources=[source], train_group_size=3, **settings)
        return itertools.islice(pair_batches(groups, chosen, PairConfig(120), query_max_len=28, **place), count)

    def rows(batches):
        return {tuple(row[row >= 0].tolist()) for batch in batches for row in batch["pair"].reshape(24, -1)}

    found = list(batches(40, length_buckets=tuple(map(Bucket, edges))))
    around = chosen.pair_frame.size - 2 * len(chosen.begin + chosen.end)
    assert {batch["pair"].shape for batch in found} == {(8, 3, 28 + t + around) for t in edges}
    assert rows(found) == rows(batches(40))
    assert max(map(len, rows(found))) < 120
