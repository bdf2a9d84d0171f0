from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.errors import InputError
from jaxret.search.analyzers import _clusters, _normalized, _term_spans, analyzer, matched_spans

# Letters with marks, half-width kana, ligatures, Hangul parts, Thai vowels, digits: what normalisation moves about.
ALPHABET = "aZßΣςİﬁé\u0301か\u3099ｶﾞー漢字々1９_ ．。กเาี่ำ각\u1100\u1161\u11a8हि\u093c\U00020000\u0f71\u0f72"
TEXTS = st.text(st.sampled_from(ALPHABET) | st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("en", "The cat's ＣＡＦÉ, no. 5", ["the", "cat", "s", "café", "no", "5"]),
        ("el", "ΟΔΟΣ οδός", ["οδοσ", "οδόσ"]),
        ("hi", "हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("am", "አማርኛ ቋንቋ፣ ነው።", ["አማርኛ", "ቋንቋ", "ነው"]),
        ("ja", "猫。日本語", ["猫", "日本", "本語"]),
        ("ja", "ｶﾞｷﾞー", ["ガギ", "ギー"]),
        ("ja", "1990年に", ["1990", "1990年", "年に"]),
        ("ja", "JAX入門 Flax", ["jax", "jax入", "入門", "flax"]),
        ("zh-Hans", "检索", ["检索"]),
        ("tha", "เรียน", ["เรีย", "ยน"]),
        ("mul", "日本 Tokyo", ["日本", "tokyo"]),
        ("en", "", []),
    ],
)
def test_terms(language, text, terms):
    assert analyzer(language)(text) == terms


@pytest.mark.parametrize("code", ["ja", "jpn", "JA", "ja-JP", "jpn_Jpan"])
def test_codes_of_one_language(code):
    assert analyzer(code) == analyzer("ja") != analyzer("en")


@pytest.mark.parametrize("code", ["", "english", "j", "ja_", "日本", "e n"])
def test_not_a_code(code):
    with pytest.raises(InputError, match="ISO 639"):
        analyzer(code)


@given(TEXTS)
def test_clusters_tile_the_text_and_normalise_alone(text):
    spans = list(_clusters(text))
    assert [position for begin, end in spans for position in range(begin, end)] == list(range(len(text)))
    whole = unicodedata.normalize("NFKC", text)
    assert "".join(unicodedata.normalize("NFKC", text[begin:end]) for begin, end in spans) == whole


@given(TEXTS, st.sampled_from(["ja", "en"]))
def test_spans_are_the_terms(text, language):
    normalized = _normalized(text)
    spans = _term_spans(normalized, analyzer(language).unspaced)
    assert sorted(normalized[begin:end] for begin, end in spans) == sorted(analyzer(language)(text))


@given(TEXTS, st.sampled_from(["ja", "en"]))
def test_a_text_matches_all_of_itself(text, language):
    spans = matched_spans(analyzer(language), text, text)
    covered = "".join(_normalized(text[begin:end]) for begin, end in spans)
    letters = [c for c in _normalized(text) if c.isalnum() or c == "_"]
    assert [c for c in covered if c.isalnum() or c == "_"] == letters
    assert all(first[1] < second[0] for first, second in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize(
    ("language", "query", "text", "marked"),
    [
        ("en", "Cats bite", "cats, dogs BITE. bitten", ["cats", "BITE"]),
        ("ja", "日本の首都", "首都は日本国", ["首都", "日本"]),
        ("ja", "ガギ test", "日本語のｶﾞｷﾞＴＥＳＴ", ["ｶﾞｷﾞＴＥＳＴ"]),
        ("en", "office", "the oﬃce", ["oﬃce"]),
        ("en", "dog", "cats", []),
        ("en", "", "cats", []),
    ],
)
def test_matched_spans(language, query, text, marked):
    assert [text[begin:end] for begin, end in matched_spans(analyzer(language), query, text)] == marked
