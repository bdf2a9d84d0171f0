import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxret.data.masking import MaskedLM, RetroMAE, Words, corrupted, drawn_words
from jaxret.data.pretrained_tokenizer import PretrainedTokenizer
from jaxret.errors import InputError
from tests.data.test_word_starts import GOLDENS

# Ids 0 to 3 are special, 4 to 9 begin words and 10 to 19 go on with them; 3 is [MASK].
WORDS = Words(np.arange(20) < 10, np.arange(20) > 3, 3)
PAD = -1


def random(seed=0):
    return np.random.default_rng(seed)


def words_of(ids):
    """Lists of positions, in plain Python."""
    found, before = [], False
    for place, token in enumerate(ids):
        ordinary = token > 3
        if ordinary and (token < 10 or not before):
            found.append([place])
        elif ordinary:
            found[-1].append(place)
        before = ordinary
    return found


@given(st.lists(st.integers(PAD, 19), min_size=1, max_size=40), st.floats(0.05, 0.9), st.integers(0, 9))
def test_draws_whole_words_and_never_too_many(row, rate, seed):
    ids = np.array(row, np.int32)
    where = drawn_words(ids, WORDS, rate, random(seed))
    words = words_of(row)
    assert all(len({bool(where[place]) for place in word}) == 1 for word in words)
    ordinary = sum(map(len, words))
    assert not where[[token <= 3 for token in row]].any()
    limit = max(1, round(rate * ordinary))
    assert where.sum() <= limit
    left = [len(word) for word in words if not where[word[0]]]
    assert not left or where.sum() + min(left) > limit, "no word that fits is left"


def test_every_word_is_as_likely():
    ids = np.array([0, 4, 5, 10, 11, 6, 7, 8, 12, 9, 1, PAD], np.int32)
    counts = sum(drawn_words(ids, WORDS, 0.34, random(seed)).astype(int) for seed in range(2000))
    assert counts[[0, 10, 11]].sum() == 0 and counts[2] == counts[3] == counts[4] and counts[7] == counts[8]
    single = counts[[1, 5, 6, 9]] / 2000
    assert np.ptp(single) < 0.06 and 0.25 < counts.sum() / 9 / 2000 <= 1 / 3


def test_replacement_rates():
    ids = np.tile(np.arange(4, 14, dtype=np.int32), 2000)
    where = np.arange(len(ids)) % 2 == 0
    found = corrupted(ids, where, WORDS, (0.8, 0.1, 0.1), random())
    np.testing.assert_array_equal(found[~where], ids[~where])
    assert found.dtype == np.int32
    changed = found[where] != ids[where]
    assert np.mean(found[where] == 3) == pytest.approx(0.8, abs=0.015)
    others = changed & (found[where] != 3)
    assert others.mean() == pytest.approx(0.1 * 15 / 16, abs=0.01)
    assert set(found[where][others].tolist()) == set(range(4, 20)), "any ordinary id, and no special one"
    np.testing.assert_array_equal(corrupted(ids, where, WORDS, (1.0, 0.0, 0.0), random()), np.where(where, 3, ids))
    np.testing.assert_array_equal(corrupted(ids, where, WORDS, (0.0, 0.0, 1.0), random()), ids)


def rows(count=30):
    ids = random(5).integers(4, 20, (count, 24)).astype(np.int32)
    ids[:, 0], ids[:, 20], ids[:, 21:] = 0, 1, PAD
    return ids, np.stack([np.full(count, 7), np.arange(count)], 1)


def test_masked_lm_is_a_loop_over_rows():
    ids, seeds = rows()
    masking = MaskedLM(rate=0.3)
    found = masking.rows(ids, seeds, WORDS)
    assert found.keys() == masking.ranks.keys() and all(x.dtype == np.int32 for x in found.values())
    for i in range(len(ids)):
        alone = masking.rows(ids[i : i + 1], seeds[i : i + 1], WORDS)
        np.testing.assert_array_equal(alone["masked"][0], found["masked"][i])
        np.testing.assert_array_equal(alone["where"][0], found["where"][i])
    np.testing.assert_array_equal(found["masked"][found["where"] == 0], ids[found["where"] == 0])
    assert not found["where"][ids <= 3].any() and 0.26 < found["where"][ids > 3].mean() < 0.31
    assert len({tuple(row) for row in masking.rows(np.tile(ids[:1], (30, 1)), seeds, WORDS)["where"]}) > 15


def test_pieces_instead_of_words():
    ids, seeds = rows()
    words = Words(np.ones(20, np.bool_), WORDS.ordinary, 3)
    where = MaskedLM(rate=0.25, whole_words=False).rows(ids, seeds, words)["where"]
    assert (where.sum(1) == round(0.25 * 19)).all()


def test_retromae():
    ids, seeds = rows()
    masking = RetroMAE()
    assert masking.rate == 0.3
    found, plain = masking.rows(ids, seeds, WORDS), MaskedLM(0.3).rows(ids, seeds, WORDS)
    np.testing.assert_array_equal(found["encoder_ids"], plain["masked"])
    np.testing.assert_array_equal(found["encoder_where"], plain["where"])
    drawn = found["decoder_seed"]
    assert drawn.shape == (30,) and drawn.dtype == np.int32 and (drawn >= 0).all() and len(set(drawn.tolist())) == 30
    assert found.keys() == masking.ranks.keys()


def test_of_a_tokeniser(vocabulary):
    words = Words.of(vocabulary)
    assert words.mask_id == vocabulary.mask_id and np.flatnonzero(~words.ordinary).tolist() == list(range(7))
    assert not words.starts.all() and Words.of(vocabulary, whole_words=False).starts.all()
    assert MaskedLM(whole_words=False).words(vocabulary).starts.all()
    with pytest.raises(InputError, match=r"masking: this tokeniser has no \[MASK\]"):
        Words.of(PretrainedTokenizer.load(GOLDENS / "qwen"))


def test_wrong_settings():
    for make, message in [
        (lambda: MaskedLM(rate=0.0), "rate 0.0 is no share"),
        (lambda: RetroMAE(rate=1.0), "rate 1.0 is no share"),
        (lambda: MaskedLM(replacement=(0.8, 0.1)), "is no distribution"),
        (lambda: MaskedLM(replacement=(0.8, 0.1, 0.2)), "is no distribution"),
        (lambda: MaskedLM(replacement=(1.2, -0.1, -0.1)), "is no distribution"),
    ]:
        with pytest.raises(InputError, match=message):
            make()
