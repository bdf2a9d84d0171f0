import itertools

import numpy as np
import pytest

from jaxret.data.group_tables import passage_key
from jaxret.data.masking import MaskedLM, RetroMAE
from jaxret.data.running_text import TextSource
from jaxret.data.sentences import joined
from jaxret.data.text import TextConfig, passage_ids
from jaxret.data.text_batches import context_batches, text_batches
from jaxret.data.text_tables import filled_rows, packed_tables
from jaxret.errors import InputError

TEXT = TextConfig(passage_max_len=24)
SIZES = [2, 5, 9, 3, 1, 6, 4, 1, 7, 2]
DOCUMENTS = [[f"文{n}の{i}番目。" for i in range(size)] for n, size in enumerate(SIZES)]
LONGER = [document for document in DOCUMENTS if len(document) > 1]


@pytest.fixture
def file(tmp_path):
    def write(documents=DOCUMENTS, name="text.txt"):
        (tmp_path / name).write_text("\n\n".join("\n".join(document) for document in documents), encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def batches(vocabulary, tmp_path):
    def make(kind, sources, count, *, batch=4, seed=0, text=TEXT, **settings):
        iterator = kind(
            [source if isinstance(source, TextSource) else TextSource(source) for source in sources],
            vocabulary,
            text,
            global_batch_size=batch,
            seed=seed,
            cache_dir=tmp_path / "cache",
            **settings,
        )
        return list(itertools.islice(iterator, count))

    return make


@pytest.fixture
def sentence_of(vocabulary):
    """{row of ids: (number of the document, place in it)} of every sentence."""
    places = [(n, i) for n, document in enumerate(DOCUMENTS) for i in range(len(document))]
    rows = [tuple(passage_ids(vocabulary, TEXT, [DOCUMENTS[n][i]])[0]) for n, i in places]
    assert len(set(rows)) == len(rows)
    found = dict(zip(rows, places, strict=True))
    return lambda row: found[tuple(token for token in row.tolist() if token >= 0)]


def same(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_context_is_near_and_never_the_centre(file, batches, sentence_of, caplog):
    """Against the file: 8 documents of two or more sentences, so that 2 batches of 4 are an epoch."""
    seen, drawn = [], {}
    for batch in batches(context_batches, [TextSource(file(), language=2)], 160, window=2):
        assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
            "center": ((4, 24), np.int32),
            "context": ((4, 24), np.int32),
            "document": ((4,), np.int32),
            "language": ((4,), np.int32),
        }
        assert batch["language"].tolist() == [2] * 4
        for center, context, document in zip(batch["center"], batch["context"], batch["document"], strict=True):
            (n, i), (m, j) = sentence_of(center), sentence_of(context)
            assert n == m and 0 < abs(i - j) <= 2 and document == passage_key("", joined(DOCUMENTS[n]))
            seen.append(n)
            drawn.setdefault((n, i), []).append(j)
    epochs = np.array(seen).reshape(-1, 8)
    wanted = [n for n, size in enumerate(SIZES) if size > 1]
    assert all(sorted(epoch) == wanted for epoch in epochs.tolist()), "a pair a document an epoch"
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 70
    assert "2 documents of one sentence are left out" in caplog.text
    for n in wanted:
        centers = [len(drawn[n, i]) for i in range(SIZES[n])]
        assert sum(centers) == 80 and min(centers) > 0.2 * 80 / SIZES[n], "any sentence is a centre"
        for i in range(SIZES[n]):
            near = {j for j in range(max(0, i - 2), min(SIZES[n], i + 3)) if j != i}
            assert set(drawn[n, i]) <= near and (len(drawn[n, i]) < 20 or set(drawn[n, i]) == near)


def test_context_is_uniform(file, batches, sentence_of):
    """Whatever the centre's place in its document: of the first sentence there are two candidates, not four."""
    source = file([DOCUMENTS[2]])
    counts = np.zeros((9, 9))
    for batch in batches(context_batches, [source], 60, batch=60, window=2):
        for center, context in zip(batch["center"], batch["context"], strict=True):
            counts[sentence_of(center)[1], sentence_of(context)[1]] += 1
    assert np.abs(counts.sum(1) / 400 - 1).max() < 0.2
    shares = counts / counts.sum(1, keepdims=True)
    for i in range(9):
        near = [j for j in range(max(0, i - 2), min(9, i + 3)) if j != i]
        np.testing.assert_allclose(shares[i, near], 1 / len(near), atol=0.09)


def test_two_pairs_of_a_document_are_told(file, batches, sentence_of):
    """Over the border of epochs a document can come twice, and copies of it can be in two sources: equal numbers."""
    sources = [file(), file([*LONGER[:3], ["別。", "別の。"]], "more.txt")]
    repeated = 0
    for batch in batches(context_batches, sources, 30, batch=6, window=1):
        numbers = batch["document"].tolist()
        texts = [tuple(row.tolist()) for row in batch["center"]]
        known = [n for n, text in zip(numbers, texts, strict=True) if n != passage_key("", "別。別の。")]
        places = [sentence_of(np.array(text))[0] for n, text in zip(numbers, texts, strict=True) if n in known]
        assert len(set(zip(known, places, strict=True))) == len(set(known)) == len(set(places))
        repeated += len(known) - len(set(known))
    assert repeated > 10


@pytest.mark.parametrize("kind", ["context", "text", "packed"])
def test_resumes_and_is_the_same_for_any_number_of_processes(kind, file, batches):
    sources = [TextSource(file(), rate=2.0), TextSource(file(DOCUMENTS[3:], "more.txt"), language=1)]
    settings = {
        "context": {"window": 3},
        "text": {"masking": RetroMAE()},
        "packed": {"masking": MaskedLM(), "packed": True},
    }[kind]
    call = context_batches if kind == "context" else text_batches
    whole = batches(call, sources, 9, batch=6, **settings)
    same(batches(call, sources, 9, batch=6, **settings), whole)
    same(batches(call, sources, 4, batch=6, start=5, **settings), whole[5:])
    parts = [batches(call, sources, 4, batch=6, start=5, process_index=p, process_count=2, **settings) for p in (0, 1)]
    joint = [{n: np.concatenate([a[n], b[n]]) for n in a} for a, b in zip(*parts, strict=True)]
    same(joint, whole[5:])
    other = batches(call, sources, 1, batch=6, seed=1, **settings)[0]
    assert any((other[name] != whole[0][name]).any() for name in other)
    share = np.mean([batch["language"] for batch in batches(call, sources, 60, batch=6, **settings)])
    assert 0.25 < share < 0.42, "a third"


def test_texts_are_packed_sentences(file, batches, vocabulary):
    """Every text of a plain loop once an epoch; none could take its document's next sentence."""
    wanted = []
    for document in DOCUMENTS:
        lengths = [len(ids) for ids in vocabulary.encode(document)]
        begin = 0
        for end in range(1, len(document) + 1):
            if end == len(document) or sum(lengths[begin : end + 1]) > 24 - 3:
                wanted.append(joined(document[begin:end]))
                begin = end
    assert max(map(len, wanted)) == 2 * len(DOCUMENTS[0][0])
    rows = sorted(map(tuple, passage_ids(vocabulary, TEXT, wanted)))
    found = batches(text_batches, [file()], 1, batch=len(wanted))
    assert found[0].keys() == {"tokens", "language"} and found[0]["tokens"].shape == (23, 24)
    assert sorted(tuple(token for token in row if token >= 0) for row in found[0]["tokens"].tolist()) == rows


def test_packed_rows_hold_the_same_texts(file, batches, vocabulary):
    """Each once an epoch and whole, with its number; in fewer rows."""
    text = TextConfig(passage_max_len=50)
    texts = [row["text"] for row in packed_tables(TextSource(file()), vocabulary.encode, 47).tables["texts"]]
    ids = passage_ids(vocabulary, text, texts)
    wanted = sorted(map(tuple, ids))
    count = len([*filled_rows(texts, map(len, ids), 50).tables["rows"]])
    assert len(set(wanted)) == len(texts) > 1.2 * count
    for batch in batches(text_batches, [file()], 2, batch=count, text=text, packed=True):
        assert batch.keys() == {"tokens", "segments", "language"} and batch["segments"].dtype == np.int32
        assert batch["tokens"].shape == batch["segments"].shape == (count, 50)
        found = []
        for tokens, segments in zip(batch["tokens"], batch["segments"], strict=True):
            kept = segments[segments >= 0]
            assert set(np.diff(kept).tolist()) <= {0, 1} and kept[0] == 0 and (segments[len(kept) :] == -1).all()
            assert ((tokens >= 0) == (segments >= 0)).all()
            found += [tuple(tokens[segments == number].tolist()) for number in range(kept[-1] + 1)]
        assert sorted(found) == wanted


def test_packed_rows_are_full(demo, vocabulary):
    source, text = TextSource(demo / "jsquad"), TextConfig(passage_max_len=256)
    texts = [row["text"] for row in packed_tables(source, vocabulary.encode, 253).tables["texts"]][:400]
    lengths = [len(ids) for ids in passage_ids(vocabulary, text, texts)]
    rows = [row["texts"] for row in filled_rows(texts, lengths, 256).tables["rows"]]
    assert sorted(text for row in rows for text in row) == sorted(texts)
    length_of = dict(zip(texts, lengths, strict=True))
    assert max(sum(length_of[text] for text in row) for row in rows) <= 256
    assert sum(lengths) > 0.9 * 256 * len(rows) and sum(lengths) < 0.55 * 256 * len(texts)


def test_packing_keeps_few_rows_open():
    """The fullest is closed for a new one: 70 rows of 6, and later texts of 4 find the last 64 of them."""
    texts = [str(i) for i in range(140)]
    rows = [row["texts"] for row in filled_rows(texts, [6] * 70 + [4] * 70, 10).tables["rows"]]
    assert rows[:6] == [[str(i)] for i in range(6)]
    assert sorted(map(len, rows[6:])) == [2] * 67


def test_packing_loses_next_to_nothing(demo, vocabulary):
    """Of real passages: sentences have other ids together than alone."""
    source, text = TextSource(demo / "jsquad"), TextConfig(passage_max_len=128)
    texts = [row["text"] for row in packed_tables(source, vocabulary.encode, 125).tables["texts"]]
    passages = "".join(joined(document) for document in source.documents())
    assert "".join("".join(texts).split()) == "".join(passages.split()), "and halved sentences lose nothing"
    whole, kept = (sum(map(len, rows)) for rows in (vocabulary.encode(texts), passage_ids(vocabulary, text, texts)))
    assert 0.998 * whole < kept - 3 * len(texts) <= whole
    assert kept > 0.6 * 128 * len(texts), "and the rows are full"


@pytest.mark.parametrize("masking", [MaskedLM(), RetroMAE(whole_words=False)])
def test_masking_of_the_batches(masking, file, batches, vocabulary):
    names = {"masked": "masked", "where": "where"} if type(masking) is MaskedLM else None
    names = names or {"masked": "encoder_ids", "where": "encoder_where"}
    found = batches(text_batches, [file()], 40, batch=8, masking=masking)
    assert found[0].keys() == {"tokens", "language", *masking.ranks}
    assert all(value.dtype == np.int32 and len(value) == 8 for value in found[0].values())
    tokens, masked, where = (
        np.concatenate([batch[name] for batch in found]) for name in ("tokens", names["masked"], names["where"])
    )
    np.testing.assert_array_equal(masked[where == 0], tokens[where == 0])
    special = (tokens < 0) | np.isin(tokens, vocabulary.special_ids)
    assert not where[special].any() and where[~special].mean() == pytest.approx(masking.rate, rel=0.15)
    shares = [(masked[where == 1] == vocabulary.mask_id).mean(), (masked == tokens)[where == 1].mean()]
    np.testing.assert_allclose(shares, [0.8, 0.1], atol=0.04)
    if isinstance(masking, RetroMAE):
        seeds = np.concatenate([batch["decoder_seed"] for batch in found])
        assert len(set(seeds.tolist())) == len(seeds) == 320
    plain = batches(text_batches, [file()], 40, batch=8)
    np.testing.assert_array_equal(np.concatenate([batch["tokens"] for batch in plain]), tokens)


def test_errors(file, batches, tmp_path):
    lonely = file([["一。"], ["二。"]], "lonely.txt")
    (tmp_path / "empty.txt").write_text("\n")
    cases = [
        (context_batches, [], {"window": 1}, "sources: nothing to train on"),
        (context_batches, [file()], {"window": 0}, "window: 0 leaves no context"),
        (context_batches, [lonely], {"window": 1}, "lonely.txt: no document has two sentences"),
        (text_batches, [tmp_path / "empty.txt"], {}, "empty.txt: holds no text"),
        (text_batches, [file(), TextSource(file(), language=1)], {}, "the same text twice"),
        (text_batches, [file()], {"batch": 3, "process_count": 2}, "3 cannot be divided among 2"),
        (text_batches, [file()], {"devices": 8}, "global_batch_size: 4 cannot be divided among 8 devices"),
        (context_batches, [file()], {"window": 1, "devices": 8}, "4 cannot be divided among 8 devices"),
        (text_batches, [file()], {"start": -2}, "start: -2 is negative"),
        (text_batches, [file()], {"pure": "yes"}, "pure: unknown choice 'yes'"),
        (text_batches, [file()], {"packed": True, "masking": RetroMAE()}, "packed: RetroMAE rebuilds a row from one"),
        (text_batches, [tmp_path / "none.txt"], {}, "no such file"),
        (
            text_batches,
            [file()],
            {"text": TextConfig(passage_max_len=5, passage_prefix="文章を表現する: ")},
            "passage_max_len: 5 leaves no room beside the prefix",
        ),
    ]
    for kind, sources, settings, message in cases:
        with pytest.raises(InputError, match=message):
            batches(kind, sources, 1, **settings)
