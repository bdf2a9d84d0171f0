import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxret.data.text import TextConfig, padded, passage_ids, passage_text, query_ids
from jaxret.data.tokenizer import CLS, DOCUMENT, MASK, QUERY, SEP
from jaxret.errors import InputError

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


def test_passage_ids(vocabulary):
    config = TextConfig(passage_prefix="文書: ", passage_max_len=12)
    for text, row in zip(TEXTS, passage_ids(vocabulary, config, TEXTS), strict=True):
        assert row == [CLS, DOCUMENT, *vocabulary.encode(["文書: " + text])[0][:9], SEP] and len(row) <= 12


def test_passage_text():
    assert passage_text("T", "x", " ") == "T x"
    assert passage_text("", "x", "\n") == passage_text("x", "", "\n") == passage_text("\u3000", "x ", "\n") == "x"


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(1, 99), max_size=7), max_size=5),
    extra=st.none() | st.integers(0, 3),
    multiple=st.integers(1, 5),
)
def test_padded(rows, extra, multiple):
    longest = max([len(row) for row in rows], default=0)
    array = padded(rows, None if extra is None else longest + extra, multiple)
    assert array.dtype == np.int32 and len(array) == len(rows)
    assert array.shape[1] % multiple == 0 and 0 <= array.shape[1] - longest - (extra or 0) < multiple
    for row, line in zip(rows, array.tolist(), strict=True):
        assert line == row + [0] * (array.shape[1] - len(row))


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
        ({"passage_max_len": 0}, "passage_max_len: 0 is too short"),
    ],
)
def test_config_errors(settings, message):
    with pytest.raises(InputError, match=message):
        TextConfig.from_dict(settings)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [("passage_max_len", "64", "int"), ("passage_max_len", True, "int"), ("query_prefix", None, "str")],
)
def test_config_types(name, value, kind):
    config = TextConfig()
    object.__setattr__(config, name, value)  # past the type checker, which only runs in tests
    with pytest.raises(InputError, match=f"{name}: {value!r} is not of type {kind}"):
        config.__post_init__()
