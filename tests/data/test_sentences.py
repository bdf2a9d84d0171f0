import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.data.beir import read_corpus
from jaxret.data.sentences import STOPS, joined, sentences

# One sentence a line, as the text has them.
JAPANESE = """彼は「はい。そうです。」と言った。
次に「行こう！」と誘った！？
値は３．５倍になった．
「何？」
（雨だった。）"""
AMHARIC = """ልዩ ዞኑ ያስገነባቸው ፕሮጀክቶች 50ሺ ነዋሪዎችን ተጠቃሚ አደረጉ።
ይህ ምንድን ነው፧
በአዳማ ልዩ ዞን ነው፡፡
አዎ!"""
ENGLISH = """Dr. Smith met J. R. Brown of the U.S. Army at 3.14 p.m. today.
He said “Go. Now.”
Then he left!
Really?!
(See Fig. 2. It is old.)
Yes... and no.
No."""
OTHERS = ["यह है।\nवह था॥\nक्या?", "هل هذا؟\nنعم.\nیہ ہے۔\nہاں", "Սա է։\nայո"]


@pytest.mark.parametrize("lines", [JAPANESE, AMHARIC, ENGLISH, *OTHERS])
def test_cuts_at_full_stops(lines):
    wanted = lines.split("\n")
    assert sentences(" ".join(wanted)) == wanted
    assert sentences(f"  {lines}\n\n") == wanted, "a line's end is one too"


@pytest.mark.parametrize("lines", [JAPANESE, AMHARIC])
def test_own_full_stops_need_no_space(lines):
    wanted = lines.split("\n")
    assert sentences("".join(wanted)) == wanted


def test_brackets_that_do_not_match():
    assert sentences("broken ) here. Then ( there. End.") == ["broken ) here.", "Then ( there.", "End."]
    assert sentences("「始まり。続き。") == ["「始まり。", "続き。"]


@given(st.lists(st.sampled_from(["a", "B", " ", "\n", "あ", "።", "(", "」", "Mr", '"', *STOPS, ".", "!"])).map("".join))
def test_nothing_is_lost(text):
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in found)


def test_the_demo_is_cut_where_its_full_stops_are(demo):
    """Japanese encyclopedia: a full stop ends a sentence, but for a few in quotations."""
    text = "".join(read_corpus(demo / "jsquad").texts[:200])
    found = sentences(text)
    assert 0.98 < len(found) / text.count("。") <= 1
    assert sum(sentence.count("。") != 1 for sentence in found) < 0.02 * len(found)


def test_joined():
    assert joined(["It is.", "Was it?"]) == "It is. Was it?"
    assert joined(["雨だ。", "そう。"]) == "雨だ。そう。"
    assert joined(["雨だ。", "OK."]) == "雨だ。OK." and joined(["ነው።", "አዎ።"]) == "ነው። አዎ።"
    assert joined(["", "a", "", "b"]) == "a b" and joined([]) == ""
