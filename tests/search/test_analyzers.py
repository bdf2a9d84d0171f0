from __future__ import annotations

import sys
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.errors import InputError
from jaxret.search.analyzers import analyzer, matched_spans, unspaced_or_words
from jaxret.search.japanese import mecab
from jaxret.search.words import clusters, normalized

# Letters with marks, half-width kana, ligatures, Hangul parts, Thai vowels, digits: what normalisation moves about.
ALPHABET = "aZßΣςİﬁé\u0301か\u3099ｶﾞー漢字々1９_ ．。กเาี่ำ각\u1100\u1161\u11a8हि\u093c\U00020000\u0f71\u0f72"
TEXTS = st.text(st.sampled_from(ALPHABET) | st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("fr", "The cat's ＣＡＦÉ, no. 5", ["the", "cat", "s", "café", "no", "5"]),
        ("el", "ΟΔΟΣ οδός", ["οδοσ", "οδόσ"]),
        ("hi", "हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ti", "ቋንቋ ትግርኛ፣ እዩ።", ["ቋንቋ", "ትግርኛ", "እዩ"]),
        ("am", "ሀገሮች፣ ነው።", ["ሀገሮች", "ነው", "+ሀገር", "+ነው"]),
        ("en", "Cats' running", ["cat", "run"]),
        ("deu", "Die Häuser", ["die", "haus"]),
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


@pytest.mark.parametrize(
    ("language", "name", "text", "terms"),
    [
        ("ja", "words", "日本語 1990年", ["日本語", "1990年"]),
        ("ja", "1-grams", "1990年に", ["1990", "年", "に"]),
        ("ja", "3-grams", "1990年に 日本", ["1990", "1990年に", "日本"]),
        ("ja", "3-grams", "日本語訳", ["日本語", "本語訳"]),
        ("ja", "1-grams+2-grams", "日本語", ["日", "本", "語", "+日本", "+本語"]),
        ("en", "letter-3-grams", "Cats at", ["cat", "ats", "at"]),
        ("en", "words+snowball+letter-4-grams", "Cats", ["cats", "+cat", "++cats"]),
        ("es", "snowball", "casas", ["cas"]),
        ("ja", "mecab", "猫が魚を食べました。ＡＢＣ\0も", ["猫", "魚", "食べる", "abc"]),
    ],
)
def test_terms_of_named_analyzers(language, name, text, terms):
    found = analyzer(language, name)
    assert (found(text), found.name) == (terms, name)


def test_versions():
    assert analyzer("ja", "mecab").versions.keys() == {"fugashi", "unidic-lite"}
    assert analyzer("de").versions["algorithm"] == "german"
    assert analyzer("am").versions == {"amharic rules": "1"}
    assert not analyzer("ja").versions
    assert analyzer("de") != analyzer("es")
    assert unspaced_or_words("zh-Hans") == "2-grams" and unspaced_or_words("am") == "words"


@pytest.mark.parametrize(
    ("language", "name", "parts"),
    [
        ("en", "porter", ["porter", "words, N-grams"]),
        ("en", "words+", ["''", "words, N-grams"]),
        ("en", "0-grams", ["N from 1"]),
        ("en", "letter-1-grams", ["letter- from 2"]),
        ("en", "words+words", ["twice"]),
        ("en", "mecab", ["mecab", "--language ja"]),
        ("ti", "amharic", ["amharic", "--language am"]),
        ("sw", "snowball", ["no stemmer for 'sw'", "ar, hy"]),
    ],
)
def test_no_such_analyzer(language, name, parts):
    with pytest.raises(InputError) as error:
        analyzer(language, name)
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize(
    ("package", "language", "name", "fix"),
    [
        ("Stemmer", "en", "snowball", "pip install PyStemmer"),
        ("fugashi", "ja", "mecab", r"fugashi.*pip install jaxret\[ja\]"),
        ("unidic_lite", "ja", "mecab", r"unidic_lite.*pip install jaxret\[ja\]"),
    ],
)
def test_a_missing_package(monkeypatch, package, language, name, fix):
    mecab.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=fix):
        analyzer(language, name)
    assert analyzer("fr")("a b") == ["a", "b"]


@pytest.mark.parametrize("code", ["ja", "jpn", "JA", "ja-JP", "jpn_Jpan"])
def test_codes_of_one_language(code):
    assert analyzer(code) == analyzer("ja") != analyzer("en")


@pytest.mark.parametrize("code", ["", "english", "j", "ja_", "日本", "e n"])
def test_not_a_code(code):
    with pytest.raises(InputError, match="ISO 639"):
        analyzer(code)


@given(TEXTS)
def test_clusters_tile_the_text_and_normalise_alone(text):
    spans = list(clusters(text))
    assert [position for begin, end in spans for position in range(begin, end)] == list(range(len(text)))
    whole = unicodedata.normalize("NFKC", text)
    assert "".join(unicodedata.normalize("NFKC", text[begin:end]) for begin, end in spans) == whole


@given(TEXTS, st.sampled_from(["words", "1-grams", "2-grams", "3-grams", "letter-2-grams"]))
def test_spans_are_the_terms(text, name):
    found = analyzer("ja", name)
    located = list(found.located(normalized(text)))
    assert [term for *_, term in located] == found(text)
    assert all(normalized(text)[begin:end] == term for begin, end, term in located)


@given(TEXTS)
def test_mecab_places_every_term(text):
    found, text = analyzer("ja", "mecab"), normalized(text)
    located = list(found.located(text))
    assert [term for *_, term in located] == found(text)
    assert all(end <= begin for (_, end, _), (begin, _, _) in pairwise(located))


@given(TEXTS, st.integers(1, 4))
def test_letter_grams_are_a_loop(text, n):
    expected = []
    for word in analyzer("fr")(text):
        expected += [word[i : i + n] for i in range(len(word) - n + 1)] or [word]
    assert n == 1 or analyzer("en", f"letter-{n}-grams")(text) == expected


@given(TEXTS, st.sampled_from(["words", "1-grams", "2-grams", "4-grams", "letter-3-grams", "words+snowball"]))
def test_a_text_matches_all_of_itself(text, name):
    spans = matched_spans(analyzer("de", name), text, text)
    covered = "".join(normalized(text[begin:end]) for begin, end in spans)
    letters = [c for c in normalized(text) if c.isalnum() or c == "_"]
    assert [c for c in covered if c.isalnum() or c == "_"] == letters
    assert all(first[1] < second[0] for first, second in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize(
    ("language", "query", "text", "marked"),
    [
        ("fr", "Cats bite", "cats, dogs BITE. bitten", ["cats", "BITE"]),
        ("ja", "日本の首都", "首都は日本国", ["首都", "日本"]),
        ("ja", "ガギ test", "日本語のｶﾞｷﾞＴＥＳＴ", ["ｶﾞｷﾞＴＥＳＴ"]),
        ("en", "office", "the oﬃce", ["oﬃce"]),
        ("en", "dog", "cats", []),
        ("en", "bites a cat", "Cats, BITING", ["Cats", "BITING"]),
        ("am", "ሐገር", "የሀገሮች ዋጋ", ["የሀገሮች"]),
        ("en", "", "cats", []),
    ],
)
def test_matched_spans(language, query, text, marked):
    assert [text[begin:end] for begin, end in matched_spans(analyzer(language), query, text)] == marked


def test_matched_lemmas():
    text = "昨日、魚を食べた猫。"
    spans = matched_spans(analyzer("ja", "mecab"), "猫が魚を食べる", text)
    assert [text[begin:end] for begin, end in spans] == ["魚", "食べ", "猫"]
