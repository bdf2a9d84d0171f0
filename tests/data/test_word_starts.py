from pathlib import Path

import numpy as np
import pytest

from jaxret.data.pretrained_tokenizer import PretrainedTokenizer
from jaxret.data.word_starts import word_starts

GOLDENS = Path(__file__).parents[1] / "goldens" / "tokenizers"


def words(tokenizer, text):
    (ids,) = tokenizer.encode([text])
    starts = word_starts(tokenizer)[ids]
    assert starts[0] or not tokenizer.begin
    cuts = [0, *np.flatnonzero(starts[1:]) + 1, len(ids)]
    return [tokenizer.decode(ids[a:b]).strip() for a, b in zip(cuts, cuts[1:], strict=False)]


@pytest.mark.parametrize(
    ("case", "text", "wanted"),
    [
        ("colbert_wordpiece", "unbelievable cats sleep, well", ["unbelievable", "cats", "sleep", ",", "well"]),
        ("xlm_roberta", "unbelievable cats sleep, well", ["unbelievable", "cats", "sleep", ",", "well"]),
        ("roberta", " unbelievable cats sleep, well", ["unbelievable", "cats", "sleep", ",", "well"]),
        ("pylate_modernbert", " doesn't", ["doesn", "'t"]),
        ("roberta", " ሰላም ለዓለም", ["ሰላም", "ለዓለም"]),
    ],
)
def test_words_of_published_tokenisers(case, text, wanted):
    found = words(PretrainedTokenizer.load(GOLDENS / case), text)
    bare = [word.replace("##", "").replace(" ", "") for word in found]
    assert bare == wanted


def test_pieces_in_scripts_without_spaces(vocabulary):
    text = "日本の、大学 です"
    (ids,) = vocabulary.encode([text])
    assert words(vocabulary, text) == [piece.strip("▁") for piece in vocabulary.pieces(ids)]


def test_characters_spelled_in_bytes(vocabulary):
    assert words(vocabulary, "ሰላም") == ["", "ሰ", "ላ", "ም"], "the space, and each character"


def test_pieces_of_bytes_of_kana_and_ideographs():
    found = words(PretrainedTokenizer.load(GOLDENS / "qwen"), "猫は寝る")
    assert found == ["猫", "は", "寝", "る"]


def test_without_marks_every_piece_is_a_word():
    assert word_starts(PretrainedTokenizer.load(GOLDENS / "generic")).all()
