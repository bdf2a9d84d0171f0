import pytest

from jaxret.data.beir import read_corpus
from jaxret.data.tokenizer import SPECIAL_PIECES, Tokenizer, trained_vocabulary
from jaxret.data.vocabulary import LONGEST_SENTENCE, _sample, _sentences
from jaxret.errors import InputError

ENGLISH = ["the quick brown fox jumps over the lazy dog", "pack my box with five dozen liquor jugs"] * 20


def test_same_arguments_same_bytes(demo):
    texts = read_corpus(demo / "jsquad").texts
    first = trained_vocabulary(texts, 1800, sample=500)
    assert trained_vocabulary(iter(texts), 1800, sample=500) == first
    assert trained_vocabulary(texts, 1800, sample=500, seed=1) != first


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_special_ids_and_bytes(model_type):
    tokenizer = Tokenizer(trained_vocabulary(ENGLISH, 290, model_type=model_type))
    assert tokenizer.size == 290
    assert tuple(tokenizer.pieces(range(7))) == SPECIAL_PIECES
    assert tokenizer.pieces(range(7, 263)) == [f"<0x{byte:02X}>" for byte in range(256)]


def test_size_too_high_and_too_low():
    with pytest.raises(InputError, match=r"size: 8000 ids are more than .*at most \d+"):
        trained_vocabulary(ENGLISH, 8000)
    with pytest.raises(InputError, match=r"size: 100 ids cannot hold .*at least \d+"):
        trained_vocabulary(ENGLISH, 100)


def test_the_advice_can_be_followed():
    with pytest.raises(InputError) as error:
        trained_vocabulary(ENGLISH, 8000)
    most = int(error.value.fix.split("at most ")[1].split(",")[0])
    assert Tokenizer(trained_vocabulary(ENGLISH, most)).size == most


@pytest.mark.parametrize("texts", [[], [""], [" \n"]])
def test_no_text(texts):
    with pytest.raises(InputError, match="no text to learn"):
        trained_vocabulary(texts, 300)


def test_unknown_model_type():
    with pytest.raises(InputError, match='"unigram" or "bpe"'):
        trained_vocabulary(ENGLISH, 300, model_type="word")


def test_quiet(capfd):
    trained_vocabulary([*ENGLISH, "nul\0inside"], 290)
    assert capfd.readouterr() == ("", "")


def test_sentences_lose_nothing_and_fit_sentencepiece():
    text = "一つ。二つ！三つ？ four. five! 3.14 six\nseven። eight\n\n" + "長" * 9000
    sentences = list(_sentences([text]))
    assert sentences[:8] == ["一つ。", "二つ！", "三つ？", "four.", "five!", "3.14 six", "seven።", "eight"]
    assert max(map(len, sentences)) == LONGEST_SENTENCE
    assert "".join("".join(sentences).split()) == "".join(text.split())


def test_long_text_without_sentence_ends_is_learned_from():
    tokenizer = Tokenizer(trained_vocabulary(["ありがとう" * 2000], 270, character_coverage=1.0))
    assert all("0x" not in piece for piece in tokenizer.pieces(tokenizer.encode(["ありがとう"])[0]))


def test_sample_is_fair():
    counts = [0] * 20
    for seed in range(2000):
        for sentence in _sample(map(str, range(20)), 5, seed):
            counts[int(sentence)] += 1
    assert min(counts) > 400 and max(counts) < 600, "each is in 500 of 2000 draws, give or take 5 sigma"
