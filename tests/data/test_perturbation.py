from hypothesis import given
from hypothesis import strategies as st

from jaxret.data.perturbation import deleted, perturbed, swapped, units

JAPANESE = "足利 尊氏は、鎌倉時代末期から室町時代前期の武将。鎌倉幕府の御家人。"
AMHARIC = "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።"


def test_words_where_spaces_separate_them():
    assert units("the cat  sleeps\nhere") == (["the", "cat", "sleeps", "here"], " ")
    assert units(AMHARIC)[1] == " " and len(units(AMHARIC)[0]) == 10
    assert units(JAPANESE) == (list(JAPANESE), ""), "a space here and there"
    assert units("word") == (list("word"), "")


def test_spans():
    assert deleted("abcdef", 1, 3) == list("adef")
    assert swapped("abcdef", (0, 2), (3, 5)) == list("decabf")
    assert swapped("abcd", (0, 2), (2, 4)) == list("cdab")


def test_deletes_or_swaps_three_tenths():
    words = [f"w{i}" for i in range(10)]
    found = [perturbed(" ".join(words), (5, draw)).split() for draw in range(200)]
    fewer = [each for each in found if len(each) == 7]
    moved = [each for each in found if len(each) == 10]
    assert len(fewer) + len(moved) == 200 and 70 < len(fewer) < 130
    begins = [next(i for i, word in enumerate([*each, ""]) if word != words[i]) for each in fewer]
    assert sorted(set(begins)) == list(range(8))
    assert all(each == words[:begin] + words[begin + 3 :] for each, begin in zip(fewer, begins, strict=True))
    spans = [(a, c) for a in range(5) for c in range(a + 3, 8)]
    every = [swapped(words, (a, a + 3), (c, c + 3)) for a, c in spans]
    assert all(each in every for each in moved) and {tuple(each) for each in every} == {tuple(each) for each in moved}


def test_the_seed_alone_decides():
    assert perturbed(JAPANESE, (1, 2, 3)) == perturbed(JAPANESE, (1, 2, 3))
    assert len({perturbed(JAPANESE, (1, 2, column)) for column in range(20)}) > 10


@given(st.text(min_size=1, max_size=40), st.integers(0, 5))
def test_never_the_text_itself(text, draw):
    assert perturbed(text, [draw]) != text


def test_repeated_words_and_single_characters():
    for draw in range(20):
        assert perturbed("a a a a", [draw]) == "a a", "a swap would change nothing"
        assert perturbed("あ", [draw]) == ""
