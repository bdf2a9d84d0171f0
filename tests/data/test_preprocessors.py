import numpy as np
import pytest

from jaxret.data.beir import read_corpus
from jaxret.data.group_tables import passage_key
from jaxret.data.preprocessors import by_chunks, changed, chosen, encoded, fetched, visible
from jaxret.data.tensorflow_cpu import tf
from jaxret.data.text import TextConfig, padded, passage_ids, passage_text, query_ids

AMHARIC = "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።"
ARABIC = "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق."
EMOJI = "絵文字 😀👩‍👩‍👧‍👦🇯🇵 と ﷺ ㍿ ｶﾞ e\u0301 11111 [MASK]"


def choose(positives, negatives, size, draw=0, seed=0):
    example = {
        "query": tf.constant("q"),
        "positives": tf.constant(positives, tf.int64),
        "negatives": tf.constant(negatives, tf.int64),
        "seed": tf.constant([seed, draw], tf.int64),
    }
    return chosen(example, size)["rows"].numpy().tolist()


def test_chosen_takes_a_positive_and_different_negatives():
    for draw in range(50):
        positive, *negatives = choose([1, 2], [10, 11, 12, 13], 4, draw)
        assert positive in (1, 2) and set(negatives) < {10, 11, 12, 13} and len(set(negatives)) == 3


def test_chosen_is_fair_and_fixed_by_the_seed():
    def drawn(seed):
        example = {"positives": tf.constant([1, 2], tf.int64), "negatives": tf.range(10, 14, dtype=tf.int64)}
        rows = tf.data.Dataset.range(400).map(
            lambda draw: chosen(example | {"seed": tf.stack([seed, draw])}, 2)["rows"]
        )
        return np.stack(list(rows.as_numpy_iterator()))

    rows = drawn(0)
    assert 150 < (rows[:, 0] == 1).sum() < 250
    assert min(np.bincount(rows[:, 1] - 10)) > 60, "each is in 100 of 400"
    assert rows[:10].tolist() == [choose([1, 2], [10, 11, 12, 13], 2, draw) for draw in range(10)]
    assert rows.tolist() == drawn(0).tolist() != drawn(1).tolist()


def test_chosen_repeats_negatives_evenly_where_there_are_few():
    for draw in range(20):
        _, *negatives = choose([1], [10, 11], 6, draw)
        assert sorted(np.bincount(np.array(negatives) - 10)) == [2, 3]


def test_chosen_without_negatives():
    assert choose([7], [], 1) == [7]
    assert choose([7], [], 3) == [7, 7, 7]
    example = {
        "positives": tf.constant([7], tf.int64),
        "negatives": tf.constant([], tf.int64),
        "seed": tf.constant([0, 0], tf.int64),
        "relevant": tf.constant([7, 8], tf.int64),
    }
    found = chosen(example, 3)
    assert found["pseudo"].numpy().tolist() == [0, 1, 1] and found["relevant"].numpy().tolist() == [7, 8]
    assert chosen(example | {"negatives": tf.constant([9], tf.int64)}, 3)["pseudo"].numpy().tolist() == [0, 0, 0]


def test_chosen_keeps_scores_with_their_rows():
    for draw in range(20):
        example = {
            "positives": tf.constant([1, 2], tf.int64),
            "negatives": tf.constant([10, 11, 12], tf.int64),
            "positive_scores": tf.constant([0.5, 1.0]),
            "negative_scores": tf.constant([5.0, 5.5, 6.0]),
            "seed": tf.constant([0, draw], tf.int64),
        }
        found = chosen(example, 5)
        assert found.keys() == {"rows", "teacher_scores", "pseudo", "seed"}
        np.testing.assert_array_equal(found["teacher_scores"], found["rows"].numpy() / 2)


def test_fetched():
    documents = {
        "title": tf.constant(["a", "b", "c"]),
        "text": tf.constant(["x", "y", "z"]),
        "key": tf.constant([5, 6, 7], tf.int64),
    }
    found = fetched({"query": tf.constant("q"), "rows": tf.constant([2, 0], tf.int64)}, documents)
    assert found["title"].numpy().tolist() == [b"c", b"a"] and found["text"].numpy().tolist() == [b"z", b"x"]
    assert found["passage_key"].numpy().tolist() == [7, 5] and found["passage_key"].dtype == tf.int32
    assert found.keys() == {"query", "title", "text", "passage_key"}
    named = {"rows": tf.constant([2, 0], tf.int64), "relevant": tf.constant([1], tf.int64), "seed": tf.constant(3)}
    found = fetched(named, documents, width=3)
    assert found["positive_keys"].numpy().tolist() == [6, -1, -1] and found["positive_keys"].dtype == tf.int32
    assert found.keys() == {"title", "text", "passage_key", "positive_keys", "seed"}


def test_changed_where_asked(vocabulary):
    """Only the marked passages, only in the part that a model sees; the same for the same seed and column."""
    config, long = TextConfig(passage_max_len=24), "猫は庭で寝る。" * 40
    pseudo = np.array([[0, 1, 1], [0, 0, 0]], np.int32)
    examples = {
        "title": tf.constant([["題"] * 3] * 2),
        "text": tf.constant([[long] * 3] * 2),
        "passage_key": tf.fill([2, 3], 5),
        "pseudo": tf.constant(pseudo),
        "seed": tf.constant([[0, 1], [0, 2]], tf.int64),
    }
    found = changed(examples, vocabulary, config)
    texts, keys = found["text"].numpy(), found["passage_key"].numpy()
    assert (texts[pseudo == 0] == long.encode()).all() and (keys[pseudo == 0] == 5).all()
    assert found["title"].numpy()[pseudo == 1].tolist() == [b"", b""]
    seen = visible(vocabulary, config, f"題 {long}")
    assert seen == f"題 {long}"[: len(seen)] and passage_ids(vocabulary, config, [seen]) == passage_ids(
        vocabulary, config, [f"題 {long}"]
    )
    for text, key in zip(texts[pseudo == 1], keys[pseudo == 1], strict=True):
        assert len(text.decode()) <= len(seen) < 60 and key == passage_key("", text.decode())
        assert passage_ids(vocabulary, config, [text.decode()]) != passage_ids(vocabulary, config, [seen])
    assert texts[0, 1] != texts[0, 2]
    np.testing.assert_array_equal(changed(examples, vocabulary, config)["text"], texts)


@pytest.mark.parametrize(
    "config",
    [TextConfig(), TextConfig("質問: ", "文書: ", "\n", query_max_len=8, passage_max_len=20, query_expansion=False)],
)
def test_encoded_equals_the_ids_made_for_search(demo, vocabulary, config):
    corpus = read_corpus(demo / "jsquad")
    titles = [*corpus.titles[:60], "", "አማርኛ", "عربي", "\u3000"]
    texts = [*corpus.texts[:60], EMOJI, AMHARIC, ARABIC, " \n"]
    examples = {
        "query": tf.constant(texts[::2]),
        "title": tf.reshape(tf.constant(titles), [-1, 2]),
        "text": tf.reshape(tf.constant(texts), [-1, 2]),
        "passage_key": tf.reshape(tf.range(64), [-1, 2]),
    }
    found = encoded(examples, vocabulary, config)
    passages = [passage_text(title, text, config.title_separator) for title, text in zip(titles, texts, strict=True)]
    expected = padded(passage_ids(vocabulary, config, passages), config.passage_max_len)
    np.testing.assert_array_equal(found["passage"], expected.reshape(32, 2, config.passage_max_len))
    expected = padded(query_ids(vocabulary, config, texts[::2]), config.query_max_len)
    np.testing.assert_array_equal(found["query"], expected)
    np.testing.assert_array_equal(found["passage_key"], np.arange(64).reshape(32, 2))
    assert all(value.dtype == tf.int32 for value in found.values())


def test_by_chunks_keeps_the_examples_and_their_order():
    dataset = by_chunks(lambda example: {"x": example["x"] * 2})(tf.data.Dataset.from_tensor_slices({"x": range(75)}))
    assert [int(example["x"]) for example in dataset] == [2 * i for i in range(75)]
