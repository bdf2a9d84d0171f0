"""Against the loops of the originals, with their tokenisers."""

import string
from pathlib import Path

import pytest

from jaxret.data.pretrained_tokenizer import PretrainedTokenizer
from jaxret.data.skiplists import colbert_skiplist, words_skiplist

GOLDENS = Path(__file__).parents[1] / "goldens" / "tokenizers"
CASES = ["colbert_wordpiece", "bert_japanese", "xlm_roberta", "pylate_modernbert"]


def reference(case):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(GOLDENS / case)


@pytest.mark.parametrize("case", CASES)
def test_colbert_skiplist(case):
    original = reference(case)
    expected = set()
    for symbol in string.punctuation:
        expected.add(original.encode(symbol, add_special_tokens=False)[0])
    assert colbert_skiplist(PretrainedTokenizer.load(GOLDENS / case)) == expected
    assert (len(expected) > 1) == (case != "xlm_roberta"), "there each symbol begins with the mark of a space"


@pytest.mark.parametrize("case", CASES)
def test_words_skiplist(case):
    original = reference(case)
    words = [*string.punctuation, "no such piece", "[UNK]"]
    expected = set()
    for word in words:
        token = original.convert_tokens_to_ids(word)
        if token != original.unk_token_id or word == original.unk_token:
            expected.add(token)
    assert words_skiplist(PretrainedTokenizer.load(GOLDENS / case), words) == expected and len(expected) > 3


def test_they_work_for_a_vocabulary_of_ours(vocabulary):
    assert words_skiplist(vocabulary, "([") <= vocabulary.skiplist()
    assert colbert_skiplist(vocabulary) == {vocabulary.encode([symbol])[0][0] for symbol in string.punctuation}
