import itertools
import pickle
import unicodedata

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jaxret.data.tokenizer import SPECIAL_PIECES, UNK, Tokenizer, trained_vocabulary
from jaxret.errors import InputError

UNSEEN = "ሁሉም ሰዎች ነጻ ናቸው 😀👩‍👩‍👧 يولد جميع الناس أحرارا"
anything = settings(max_examples=300, suppress_health_check=list(HealthCheck))


@anything
@given(text=st.text(st.characters(), max_size=40))
@example(UNSEEN)
@example("[MASK] [CLS][PAD] [Q] [UNK] </s> <s> <0xE3> ▁▁")
@example("\0\ud800\udfff\ufeff\U0010ffff")
def test_any_text_without_unknown_or_special_ids(vocabulary, text):
    assert all(len(SPECIAL_PIECES) <= piece < vocabulary.size for piece in vocabulary.encode([text])[0])


@anything
@given(texts=st.lists(st.text(max_size=20), max_size=40))
def test_a_text_is_encoded_alike_alone_and_among_others(vocabulary, texts):
    assert vocabulary.encode(texts) == [vocabulary.encode([text])[0] for text in texts]


@anything
@given(text=st.text(max_size=40))
def test_decode_gives_the_normalised_text(vocabulary, text):
    once = vocabulary.decode(vocabulary.encode([text])[0])
    assert vocabulary.decode(vocabulary.encode([once])[0]) == once
    if text.isascii() and text.isalnum():
        assert once == text


def test_decode_leaves_special_ids_out(vocabulary):
    ids = vocabulary.encode(["漫画を描く"])[0]
    assert vocabulary.decode([2, 5, *ids, 3, 4, 4, 0]) == "漫画を描く"


@anything
@given(text=st.text(max_size=40))
@example(" ab  c ")
@example(UNSEEN)
def test_spans_are_ordered_and_cover_letters_and_digits(vocabulary, text):
    spans = vocabulary.spans(text)
    assert len(spans) == len(vocabulary.encode([text])[0])
    assert all(0 <= begin <= end <= len(text) for begin, end in spans)
    assert all(first[0] <= second[0] for first, second in itertools.pairwise(spans))
    covered = {i for begin, end in spans for i in range(begin, end)}
    for i, character in enumerate(text):
        assert i in covered or unicodedata.category(character)[0] not in "LN", (character, spans)


def test_spans_by_hand(vocabulary):
    def marked(text):
        pieces = vocabulary.pieces(vocabulary.encode([text])[0])
        return [(piece, text[begin:end]) for piece, (begin, end) in zip(pieces, vocabulary.spans(text), strict=True)]

    assert marked("は😀。") == [("▁", ""), ("は", "は"), *((f"<0x{b:02X}>", "😀") for b in "😀".encode()), ("。", "。")]
    assert marked("ｱ") == [("▁", ""), ("ア", "ｱ")]
    assert {surface for piece, surface in marked("ﷺ") if piece != "▁"} == {"ﷺ"}
    assert all(surface == piece.removeprefix("▁") for piece, surface in marked("日本の首都は東京である。"))


def test_skiplist_is_punctuation_only(vocabulary):
    skiplist = vocabulary.skiplist()
    assert set(vocabulary.pieces(sorted(skiplist))) >= {"▁", "。", "、", "「", "」", "(", ")", "-", "."}
    for identifier in range(vocabulary.size):
        piece = vocabulary.pieces([identifier])[0].replace("▁", "")
        visible = any(unicodedata.category(character)[0] in "LNMC" for character in piece)
        assert (identifier in skiplist) == (not visible), piece


def test_special_ids_have_roles(vocabulary):
    assert (vocabulary.begin, vocabulary.end) == ((2,), (3,))
    roles = (vocabulary.pad_id, vocabulary.unk_id, vocabulary.mask_id)
    assert vocabulary.pieces(roles) == ["[PAD]", "[UNK]", "[MASK]"]
    assert vocabulary.special_ids == (0, 1, 2, 3, 4, 5, 6) and vocabulary.truncation_side == "right"


def test_token_id(vocabulary):
    assert vocabulary.token_id("[Q]") == 5 and vocabulary.token_id("[D]") == 6 and vocabulary.token_id("[UNK]") == 1
    assert vocabulary.token_id("no such piece") is None and vocabulary.token_id("") is None
    ids = vocabulary.encode(["日本の首都は東京である。"])[0]
    assert [vocabulary.token_id(piece) for piece in vocabulary.pieces(ids)] == ids


def test_survives_pickling_and_the_disk(vocabulary, tmp_path):
    vocabulary.encode(["warm"])
    vocabulary.save(tmp_path / "deep" / "vocabulary.model")
    for other in (pickle.loads(pickle.dumps(vocabulary)), Tokenizer.load(tmp_path / "deep" / "vocabulary.model")):
        assert other == vocabulary and other.fingerprint == vocabulary.fingerprint
        assert other.encode(["日本"]) == vocabulary.encode(["日本"])
    assert len(repr(vocabulary)) < 100


def test_load_refuses_other_files(tmp_path, vocabulary):
    with pytest.raises(InputError, match="no vocabulary"):
        Tokenizer.load(tmp_path / "missing.model")
    for content in (b"", b"not a model", vocabulary.model[:1000]):
        (tmp_path / "bad.model").write_bytes(content)
        with pytest.raises(InputError, match="vocab"):
            Tokenizer.load(tmp_path / "bad.model")


def test_load_refuses_other_special_ids(tmp_path):
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abc abd abe"] * 9), model_writer=model, vocab_size=9, minloglevel=2
    )
    (tmp_path / "other.model").write_bytes(model.getvalue())
    with pytest.raises(InputError, match=r"ids 0 to 6 are <unk> <s> </s> .*not \[PAD\]"):
        Tokenizer.load(tmp_path / "other.model")


def test_byte_fallback_is_needed(vocabulary):
    pieces = vocabulary.pieces(vocabulary.encode(["ሁ"])[0])
    assert pieces == ["▁", "<0xE1>", "<0x88>", "<0x81>"] and UNK not in vocabulary.encode(["ሁ"])[0]
    assert trained_vocabulary.__module__ == "jaxret.data.vocabulary"
