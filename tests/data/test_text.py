import itertools
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxret.data.pretrained_tokenizer import PretrainedTokenizer
from jaxret.data.text import (
    NO_TOKEN,
    TextConfig,
    expansion_id,
    padded,
    passage_ids,
    passage_spans,
    passage_text,
    prompt_lengths,
    query_ids,
)
from jaxret.data.tokenizer import CLS, DOCUMENT, MASK, QUERY, SEP
from jaxret.errors import InputError

GOLDENS = Path(__file__).parents[1] / "goldens" / "tokenizers"
HARD_TEXTS = json.loads((GOLDENS / "texts.json").read_text())
PLAIN = TextConfig(query_marker="", passage_marker="", query_expansion=False)
TEXTS = ["手塚治虫の出身地はどこ?", "", "ሁሉም 😀", "長い" * 100]


@pytest.mark.parametrize("expansion", [True, False])
@pytest.mark.parametrize("prefix", ["", "質問: "])
def test_query_ids(vocabulary, expansion, prefix):
    config = TextConfig(query_prefix=prefix, query_max_len=16, query_expansion=expansion)
    for text, row in zip(TEXTS, query_ids(vocabulary, config, TEXTS), strict=True):
        expected = [CLS, QUERY]
        for piece in vocabulary.encode([prefix + text])[0]:
            if len(expected) < 15:
                expected.append(piece)
        expected.append(SEP)
        while expansion and len(expected) < 16:
            expected.append(MASK)
        assert row == expected and len(row) <= 16


def test_queries_are_filled_up_to_a_length_of_their_own(vocabulary):
    plain = TextConfig(query_max_len=16, query_expansion=False)
    config = TextConfig(query_max_len=16, expansion_len=8)
    rows, whole = query_ids(vocabulary, config, TEXTS), query_ids(vocabulary, plain, TEXTS)
    assert rows == [row + [MASK] * (8 - len(row)) for row in whole]
    assert {len(row) for row in rows} >= {8, 16}


def test_prompt_lengths(vocabulary):
    config = TextConfig(query_prefix="質問: ", query_max_len=16)
    assert prompt_lengths(vocabulary, config) == (2 + len(vocabulary.encode(["質問: "])[0]), 0)
    bare = TextConfig("", "文書: ", query_marker="", passage_marker="")
    assert prompt_lengths(vocabulary, bare) == (0, 1 + len(vocabulary.encode(["文書: "])[0]))


def test_passage_ids(vocabulary):
    config = TextConfig(passage_prefix="文書: ", passage_max_len=12)
    for text, row in zip(TEXTS, passage_ids(vocabulary, config, TEXTS), strict=True):
        assert row == [CLS, DOCUMENT, *vocabulary.encode(["文書: " + text])[0][:9], SEP] and len(row) <= 12


def test_passage_text():
    assert passage_text("T", "x", " ") == "T x"
    assert passage_text("", "x", "\n") == passage_text("x", "", "\n") == passage_text("\u3000", "x ", "\n") == "x"


@given(
    rows=st.lists(st.lists(st.integers(0, 99), max_size=7), max_size=5),
    extra=st.none() | st.integers(0, 3),
    multiple=st.integers(1, 5),
)
def test_padded(rows, extra, multiple):
    longest = max([len(row) for row in rows], default=0)
    array = padded(rows, None if extra is None else longest + extra, multiple)
    assert array.dtype == np.int32 and len(array) == len(rows)
    assert array.shape[1] % multiple == 0 and 0 <= array.shape[1] - longest - (extra or 0) < multiple
    for row, line in zip(rows, array.tolist(), strict=True):
        assert line == row + [NO_TOKEN] * (array.shape[1] - len(row))


def test_padded_refuses_a_longer_row():
    with pytest.raises(ValueError, match="a row of 3 ids does not fit into 2"):
        padded([[1, 2, 3]], 2)


def test_config_to_a_dict_and_back():
    config = TextConfig(query_prefix="query: ", passage_max_len=64, query_expansion=False)
    assert TextConfig.from_dict(config.to_dict()) == config
    assert TextConfig.from_dict({}) == TextConfig()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"query_len": 5}, "unknown setting 'query_len'.*query_max_len"),
        ({"query_max_len": 3}, "query_max_len: 3 is too short.*at least 4"),
        ({"query_max_len": 2, "query_marker": ""}, "query_max_len: 2 is too short.*at least 3"),
        ({"passage_max_len": 0}, "passage_max_len: 0 is too short"),
        ({"expansion_len": 33}, "expansion_len: 33 is out of range.*from 0 to query_max_len=32"),
        ({"expansion_len": -1}, "expansion_len: -1 is out of range"),
    ],
)
def test_config_errors(settings, message):
    with pytest.raises(InputError, match=message):
        TextConfig.from_dict(settings)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("passage_max_len", "64", "int"),
        ("passage_max_len", True, "int"),
        ("query_prefix", None, "str"),
        ("strip", 1, "bool"),
    ],
)
def test_config_types(name, value, kind):
    config = TextConfig()
    object.__setattr__(config, name, value)  # past the type checker, which only runs in tests
    with pytest.raises(InputError, match=f"{name}: {value!r} is not of type {kind}"):
        config.__post_init__()


@cache
def pretrained(case):
    return PretrainedTokenizer.load(GOLDENS / case)


def reference(case):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(GOLDENS / case)


@pytest.mark.parametrize("case", ["published_wordpiece", "pylate_modernbert", "xlm_roberta", "llama", "qwen"])
@pytest.mark.parametrize("prefix", ["", "query: "])
def test_rows_without_markers_are_those_of_transformers(case, prefix):
    tokenizer, expected = pretrained(case), reference(case)
    config = TextConfig(prefix, prefix, " ", 9, 12, False, query_marker="", passage_marker="")
    for rows, length in (
        (query_ids(tokenizer, config, HARD_TEXTS), 9),
        (passage_ids(tokenizer, config, HARD_TEXTS), 12),
    ):
        for text, row in zip(HARD_TEXTS, rows, strict=True):
            assert row == expected(prefix + text, truncation=True, max_length=length)["input_ids"], text


@pytest.mark.parametrize(
    ("case", "query_marker", "passage_marker"),
    [("colbert_wordpiece", "[unused0]", "[unused1]"), ("bert_japanese", "[unused0]", "[unused1]")],
)
def test_rows_with_markers_are_those_of_colbert(case, query_marker, passage_marker):
    """Tokenised to one id less, the marker put behind [CLS], the query filled up with [MASK]."""
    tokenizer, expected = pretrained(case), reference(case)
    config = TextConfig(query_max_len=16, passage_max_len=20, query_marker=query_marker, passage_marker=passage_marker)
    queries, passages = query_ids(tokenizer, config, HARD_TEXTS), passage_ids(tokenizer, config, HARD_TEXTS)
    for text, query, passage in zip(HARD_TEXTS, queries, passages, strict=True):
        first, *rest = expected(text, truncation=True, max_length=15)["input_ids"]
        row = [first, expected.convert_tokens_to_ids(query_marker), *rest]
        assert query == row + [expected.mask_token_id] * (16 - len(row))
        first, *rest = expected(text, truncation=True, max_length=19)["input_ids"]
        assert passage == [first, expected.convert_tokens_to_ids(passage_marker), *rest]


def test_a_marker_may_be_an_added_piece_with_a_space():
    tokenizer = pretrained("pylate_modernbert")
    config = TextConfig(query_marker="[Q] ", passage_marker="[D] ", query_expansion=False)
    (row,) = query_ids(tokenizer, config, ["a"])
    assert tokenizer.pieces(row) == ["[CLS]", "[Q] ", "a", "[SEP]"]
    (row,) = passage_ids(tokenizer, config, ["a"])
    assert tokenizer.pieces(row) == ["[CLS]", "[D] ", "a", "[SEP]"]


def test_a_marker_that_the_vocabulary_lacks_is_never_unknown():
    tokenizer = pretrained("colbert_wordpiece")
    with pytest.raises(InputError, match=r"query_marker: '\[Q\]' is not in the vocabulary.*query_marker=\"\""):
        query_ids(tokenizer, TextConfig(), ["a"])
    with pytest.raises(InputError, match=r"passage_marker: '\[D\]' is not in the vocabulary"):
        passage_ids(tokenizer, TextConfig(), ["a"])
    with pytest.raises(InputError, match="expansion_piece: 'no' is not in the vocabulary"):
        expansion_id(tokenizer, TextConfig(expansion_piece="no"))


def test_expansion_needs_something_to_expand_with():
    tokenizer = pretrained("llama")
    config = TextConfig(query_max_len=6, query_marker="")
    with pytest.raises(InputError, match=r"query_expansion: this tokeniser has no \[MASK\]"):
        query_ids(tokenizer, config, ["a"])
    config = TextConfig(query_max_len=6, query_marker="", expansion_piece="</s>")
    (row,) = query_ids(tokenizer, config, ["a"])
    assert len(row) == 6 and tokenizer.pieces(row)[-2:] == ["</s>"] * 2


def test_a_row_has_room_for_a_token():
    tokenizer = pretrained("generic")  # [CLS] and two [SEP]
    with pytest.raises(InputError, match=r"passage_max_len: 3 is too short.*at least 4"):
        passage_ids(tokenizer, TextConfig(passage_max_len=3, passage_marker=""), ["a"])
    assert len(passage_ids(tokenizer, TextConfig(passage_max_len=4, passage_marker=""), ["the"])[0]) == 4


@pytest.mark.parametrize("text", [" Ａ\t b \n\u3000", "\n", "", "ΣΑΣ İstanbul ﬁ", "x"])
def test_strip_and_lowercase(text):
    tokenizer = pretrained("roberta")

    def row(text, **settings):
        config = TextConfig(passage_prefix=" P: ", passage_marker="", **settings)
        return passage_ids(tokenizer, config, [text])[0][1:-1]

    assert row(text) == tokenizer.encode([" P: " + text])[0]
    assert row(text, strip=True) == tokenizer.encode([(" P: " + text).strip()])[0]
    small = "".join(character.lower() for character in " P: " + text)
    assert row(text, lowercase=True) == tokenizer.encode([small])[0]
    assert row(text, lowercase=True, strip=True) == tokenizer.encode([small.strip()])[0]


def test_lowercase_is_the_normaliser_that_sentence_transformers_adds():
    from tokenizers import Tokenizer, normalizers

    rust = Tokenizer.from_file(str(GOLDENS / "roberta" / "tokenizer.json"))
    rust.normalizer = normalizers.Lowercase()
    config = TextConfig(passage_marker="", lowercase=True, passage_max_len=400)
    texts = [text for text in HARD_TEXTS if "[" not in text and "<" not in text]
    assert passage_ids(pretrained("roberta"), config, texts) == [rust.encode(text).ids for text in texts]


CONFIGS = [
    PLAIN,
    TextConfig(passage_prefix="the ", passage_marker="", passage_max_len=12),
    TextConfig(passage_prefix=" The  ", passage_marker="", strip=True, lowercase=True),
]


@pytest.mark.parametrize(
    "case", ["roberta", "published_wordpiece", "bert_japanese", "pylate_modernbert", "xlm_roberta"]
)
@pytest.mark.parametrize("config", CONFIGS)
@settings(max_examples=30)
@given(text=st.text(st.sampled_from("  \tabTheÉİΣﬁＡ東京。0.\u3000😀\ud800"), max_size=12))
def test_passage_spans(case, config, text):
    tokenizer = pretrained(case)
    (row,), spans = passage_ids(tokenizer, config, [text]), passage_spans(tokenizer, config, text)
    assert len(spans) == len(row) and spans[0] == spans[-1] == (0, 0)
    assert all(0 <= begin <= end <= len(text) for begin, end in spans)
    inside = [span for span in spans if span[0] < span[1]]
    assert all(first[0] <= second[0] for first, second in itertools.pairwise(inside))
    if len(row) < 12 and case == "roberta":
        covered = {place for begin, end in inside for place in range(begin, end)}
        assert covered >= {place for place, character in enumerate(text) if not character.isspace()}


def test_passage_spans_by_hand(vocabulary):
    config = TextConfig(passage_prefix="文書: ", passage_max_len=64)
    text = "日本の首都は東京である。"
    (row,), spans = passage_ids(vocabulary, config, [text]), passage_spans(vocabulary, config, text)
    pieces = vocabulary.pieces(row)
    found = "".join(text[begin:end] for begin, end in spans)
    assert found == text and len(pieces) == len(spans)
    assert [span for piece, span in zip(pieces, spans, strict=True) if piece.startswith("[")] == [(0, 0)] * 3
    english = pretrained("published_wordpiece")
    config = TextConfig(passage_prefix="Q: ", passage_marker="", strip=True, lowercase=True)
    spans = passage_spans(english, config, "The  İ sea ")
    assert ["The  İ sea "[begin:end] for begin, end in spans if begin < end] == ["The", "İ", "s", "ea"]
