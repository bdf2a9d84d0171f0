import json
import logging

import numpy as np
import pytest

from jaxret.data.batches import Bucket
from jaxret.data.kinds import sized_rate, whole_buckets
from jaxret.data.tasks import GroupFile
from jaxret.data.text import padded, passage_ids
from jaxret.errors import InputError
from tests.data.conftest import TEXT, same

BUCKETS = (Bucket(16, 12), Bucket(28), Bucket(40, 4))
SIZES = {16: 12, 28: 8, 40: 4}


@pytest.fixture
def files(tmp_path):
    """Group files of these numbers of queries, each with a positive and two negatives of up to 60 words."""

    def write(*counts, languages=(0, 0, 1)):
        random = np.random.default_rng(0)
        found = []
        for file, (count, language) in enumerate(zip(counts, languages, strict=False)):
            rows = []
            for i in range(count):
                longest = 2 + 50 * i // count
                texts = [f"{file}/{i}/{k}{'の' * n}" for k, n in enumerate(random.integers(0, longest, 3))]
                rows.append({"query": f"{file}と{i}？", "pos": texts[:1], "neg": texts[1:]})
            path = tmp_path / f"{file}-of-{count}.jsonl"
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
            found.append(GroupFile(path, language=language))
        return found

    return write


def rows_of(sources, tokenizer):
    """{ids of a query: (file, row, length of its longest passage, ids of its passages)}."""
    found = {}
    for file, source in enumerate(sources):
        for i, line in enumerate(source.path.read_text(encoding="utf-8").splitlines()):
            row = json.loads(line)
            passages = passage_ids(tokenizer, TEXT, [*row["pos"], *row["neg"]])
            query = tuple(tokenizer.encode([row["query"]])[0])
            found[query] = (file, i, max(map(len, passages)), passages)
    assert len(found) == sum(len(source.path.read_text().splitlines()) for source in sources)
    return found


def taken(batch, rows, tokenizer):
    """What `rows_of` says of each row of a batch."""
    queries = [[token for token in row if token not in tokenizer.special_ids] for row in batch["query"].tolist()]
    return [rows[tuple(token for token in query if token >= 0)] for query in queries]


def test_buckets_hold_the_rows_of_their_length_and_every_row_once_an_epoch(files, batches, vocabulary):
    sources = files(40, 25)
    rows, seen = rows_of(sources, vocabulary), {}
    for batch in batches(sources, 60, batch=8, group=3, length_buckets=BUCKETS):
        b, n, t = batch["passage"].shape
        assert n == 3 and b == SIZES[t] and {len(value) for value in batch.values()} == {b}
        for (file, row, longest, passages), found in zip(taken(batch, rows, vocabulary), batch["passage"], strict=True):
            assert t == next((edge for edge in SIZES if longest <= edge), 40)
            uncut = [ids for ids in passages if len(ids) <= t]
            expected = {tuple(ids) for ids in padded(uncut, t).tolist()}
            assert len(uncut) == 3 or t == 40, "only the last bucket cuts"
            assert expected <= {tuple(ids) for ids in found.tolist()} and (found[:, 0] >= 0).all()
            seen.setdefault((file, t), []).append(row)
    assert len(seen) == 6
    for (file, t), drawn in seen.items():
        size = len(set(drawn))
        assert len(drawn) > size > 1 or (file, t) == (1, 40)
        for begin in range(0, len(drawn) - size + 1, size):
            assert len(set(drawn[begin : begin + size])) == size
    everywhere = {(file, row) for (file, _), drawn in seen.items() for row in drawn}
    assert len(everywhere) == 65


def test_every_row_of_a_source_has_as_many_turns(files, batches, vocabulary):
    """Whatever the batch sizes of their buckets, and as the sources' rates say."""
    sources = files(40, 25)
    rows, turns = rows_of(sources, vocabulary), np.zeros((2, 3))
    for batch in batches(sources, 400, rates=(1.0, 1.0), batch=8, group=3, length_buckets=BUCKETS, size_exponent=1.0):
        bucket = list(SIZES).index(batch["passage"].shape[2])
        np.add.at(turns, ([file for file, *_ in taken(batch, rows, vocabulary)], bucket), 1)
    sizes = np.zeros((2, 3))
    for file, _, longest, _ in rows.values():
        sizes[file, np.searchsorted([16, 28], longest)] += 1
    np.testing.assert_allclose(turns / turns.sum(), sizes / sizes.sum(), atol=0.03)


@pytest.mark.parametrize("buckets", [(), BUCKETS], ids=["one shape", "buckets"])
@pytest.mark.parametrize("pure", ["source", "language"])
def test_pure_batches(pure, buckets, files, batches, vocabulary):
    """One group a batch, as often as its sources' rates say together."""
    sources = [
        GroupFile(source.path, language=source.language, rate=rate)
        for source, rate in zip(files(20, 30, 10), (1.0, 3.0, 4.0), strict=True)
    ]
    rows, counts, mixed = rows_of(sources, vocabulary), np.zeros(3), 0
    for batch in batches(sources, 240, batch=8, seed=1, group=1, pure=pure, length_buckets=buckets):
        drawn = [file for file, *_ in taken(batch, rows, vocabulary)]
        assert len(set(batch["language"].tolist())) == 1
        assert pure == "language" or len(set(drawn)) == 1
        mixed += len(set(drawn)) > 1
        counts += np.bincount(drawn, minlength=3)
    assert bool(mixed) == (pure == "language")
    np.testing.assert_allclose(counts / counts.sum(), [1 / 8, 3 / 8, 4 / 8], atol=0.09)


@pytest.mark.parametrize(("pure", "buckets"), [("source", ()), ("language", BUCKETS[1:])])
def test_resumes_and_is_the_same_for_any_number_of_processes(pure, buckets, files, batches):
    settings = {"batch": 8, "group": 3, "pure": pure, "length_buckets": buckets, "size_exponent": 0.5}
    sources = files(20, 30, languages=(0, 1))
    whole = batches(sources, 30, **settings)
    assert len({batch["passage"].shape for batch in whole}) == len(buckets or [TEXT])
    same(batches(sources, 13, start=17, **settings), whole[17:])
    parts = [batches(sources, 20, start=10, process_index=p, process_count=2, **settings) for p in range(2)]
    joined = [{n: np.concatenate([a[n], b[n]]) for n in a} for a, b in zip(*parts, strict=True)]
    same(joined, whole[10:])


def test_the_log_tells_the_shapes_and_what_repeats(files, batches, caplog):
    with caplog.at_level(logging.INFO):
        batches(files(40), 1, batch=8, group=3, length_buckets=(Bucket(16, 36), *BUCKETS[1:]))
    assert "3 shapes of batches: [36 32] x [36 3 16], [8 32] x [8 3 28], [4 32] x [4 3 40]" in caplog.text
    assert "rows for batches of 36, which repeat some" in caplog.text and "batches of 8" not in caplog.text
    with caplog.at_level(logging.INFO):
        batches(files(40), 1, batch=8)
    assert "1 shapes of batches: [8 32] x [8 3 48]" in caplog.text


def test_a_bucket_without_rows_is_no_shape(files, batches, caplog):
    with caplog.at_level(logging.INFO):
        batches(files(6), 1, batch=2, group=1, length_buckets=(Bucket(6), Bucket(30), Bucket(47), Bucket(48)))
    assert "2 shapes of batches: [2 32] x [2 1 30], [2 32] x [2 1 47]" in caplog.text


def test_rates_by_size():
    assert [sized_rate(3.0, 16, exponent) for exponent in (None, 0.0, 0.5, 1.0)] == [3.0, 3.0, 12.0, 48.0]


def test_buckets_without_a_size_have_the_runs():
    assert whole_buckets([Bucket(8), Bucket(16, 2)], 20, 6) == [Bucket(8, 6), Bucket(16, 2)]
    assert whole_buckets([], 20, 6) == [Bucket(20, 6)]


def test_errors(files, batches):
    sources = files(4)
    for settings, message in [
        ({"pure": "batch"}, "pure: unknown choice 'batch'. Choose from none, source, language"),
        ({"size_exponent": -0.5}, "size_exponent: -0.5 is out of range"),
        ({"size_exponent": float("nan")}, "size_exponent: nan is out of range"),
        ({"length_buckets": (Bucket(24), Bucket(12))}, r"length_buckets: max_len \[24, 12\] do not ascend"),
        ({"length_buckets": (Bucket(24), Bucket(24))}, "do not ascend"),
        ({"length_buckets": (Bucket(24), Bucket(64))}, "64 ids, but a passage has at most 48. Raise passage_max_len"),
        ({"length_buckets": (Bucket(24), Bucket(48, 3)), "process_count": 2}, "3 cannot be divided among 2 processes"),
        (
            {"length_buckets": (Bucket(24), Bucket(48, 6)), "process_count": 2, "devices": 4},
            r"^Bucket\.global_batch_size, of max_len 48: 6 cannot be divided among 4 devices\. Choose a multiple of 4",
        ),
        ({"devices": 8}, "^global_batch_size: 4 cannot be divided among 8 devices"),
        ({"length_buckets": (Bucket(2), Bucket(48))}, "passage_max_len: 2 is too short"),
    ]:
        with pytest.raises(InputError, match=message):
            batches(sources, 1, batch=4, group=1, **settings)
    with pytest.raises(InputError, match="global_batch_size: -1 is negative"):
        Bucket(12, -1)
