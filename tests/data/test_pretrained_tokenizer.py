"""Against the ids that transformers.AutoTokenizer gives: stored ones, and live ones for any text and settings."""

import itertools
import json
import pickle
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxret.data.pretrained_tokenizer import OTHERS, VOCABULARIES, PretrainedTokenizer, load_tokenizer
from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.data.tokenizer import Tokenizer
from jaxret.errors import InputError

GOLDENS = Path(__file__).parents[1] / "goldens" / "tokenizers"
CASES = sorted(path.name for path in GOLDENS.iterdir() if path.is_dir())
TEXTS = json.loads((GOLDENS / "texts.json").read_text())
WORDS = ["The", "'s", "1", ".", "!", "##a", "É", "e\u0301", "ß", "İ", "ﬁ", "Ａ", "漢", "。", "😀", "\u200d", "አ", "▁"]
PIECES = [
    "[MASK]",
    " <mask>",
    "<mask>",
    "[CLS]",
    "</s>",
    "[Q] ",
    "[unused0]",
    "<|endoftext|>",
    " ",
    "  ",
    "\t",
    "\n",
    "\0",
]
texts = st.lists(st.sampled_from([*WORDS, *PIECES]) | st.characters(exclude_categories=["Cs"]))


@cache
def pretrained(case: str) -> PretrainedTokenizer:
    return PretrainedTokenizer.load(GOLDENS / case)


@cache
def reference(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def whole(tokenizer: TextTokenizer, text: str, length: int | None = None) -> list[int]:
    (row,) = tokenizer.encode([text])
    room = len(row) if length is None else length - len(tokenizer.begin) - len(tokenizer.end)
    row = row[max(0, len(row) - room) :] if tokenizer.truncation_side == "left" else row[:room]
    return [*tokenizer.begin, *row, *tokenizer.end]


@pytest.mark.parametrize("case", CASES)
def test_equals_the_stored_ids(case):
    tokenizer, golden = pretrained(case), json.loads((GOLDENS / f"{case}.json").read_text())
    assert len(golden["ids"]) == len(TEXTS) and any(len(row) > 9 for row in golden["ids"])
    for text, row, cut in zip(TEXTS, golden["ids"], golden["cut"], strict=True):
        assert whole(tokenizer, text) == row, text
        assert whole(tokenizer, text, 9) == cut, text
    assert tokenizer.encode(TEXTS) == [tokenizer.encode([text])[0] for text in TEXTS]
    found = (tokenizer.mask_id, tokenizer.unk_id, tokenizer.pad_id)
    assert found == tuple(golden[f"{role}_token_id"] for role in ("mask", "unk", "pad"))
    assert set(tokenizer.special_ids) >= set(golden["special_ids"])


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(parts=texts)
def test_equals_transformers_for_any_text(case, parts):
    text, tokenizer = "".join(parts), pretrained(case)
    assert whole(tokenizer, text) == reference(GOLDENS / case)(text)["input_ids"]
    spans = tokenizer.spans(text)
    assert len(spans) == len(tokenizer.encode([text])[0])
    assert all(0 <= begin <= end <= len(text) for begin, end in spans)


CHANGES = {
    "lower": {"tokenizer_config.json": {"do_lower_case": False}},
    "accents": {"tokenizer_config.json": {"strip_accents": False}},
    "chinese": {"tokenizer_config.json": {"tokenize_chinese_chars": False}},
    "space": {"tokenizer_config.json": {"add_prefix_space": True}},
    "no space": {"tokenizer_config.json": {"add_prefix_space": False}},
    "generic class": {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}},
    "class of the model": {"tokenizer_config.json": {"tokenizer_class": None}},
    "another class": {"tokenizer_config.json": {"tokenizer_class": "DistilBertTokenizer"}},
    "another model": {"config.json": {"model_type": "modernbert"}},
    "split": {"tokenizer_config.json": {"split_special_tokens": True}},
    "more pieces": {"tokenizer_config.json": {"additional_special_tokens": ["😀"]}},
    "more pieces again": {"tokenizer_config.json": {"extra_special_tokens": ["The"]}, "config.json": {}},
    "older pieces": {"added_tokens.json": {"😀": 999}},
    "another mask": {"special_tokens_map.json": {"mask_token": "The"}},
    "role": {"tokenizer_config.json": {"cls_token": "[SEP]"}},
    "side": {"tokenizer_config.json": {"truncation_side": "left"}},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("case", ["published_wordpiece", "colbert_wordpiece", "roberta", "xlm_roberta", "generic"])
def test_equals_transformers_for_other_settings(case, change, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(GOLDENS / case, folder)
    for name, record in CHANGES[change].items():
        path = folder / name
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({key: value for key, value in (before | record).items() if value is not None}))
    tokenizer, expected = PretrainedTokenizer.load(folder), reference(folder)
    for text in [*TEXTS, "The😀 <mask>The[MASK] x <mask>"]:
        assert whole(tokenizer, text) == expected(text)["input_ids"], text
        assert whole(tokenizer, text, 9) == expected(text, truncation=True, max_length=9)["input_ids"], text
    assert (tokenizer.mask_id, tokenizer.unk_id) == (expected.mask_token_id, expected.unk_token_id)


def test_tokenizer_json_needs_neither_transformers_nor_torch():
    program = f"""
import sys
from jaxret.data.pretrained_tokenizer import PretrainedTokenizer
for case in ("published_wordpiece", "colbert_wordpiece", "roberta", "pylate_modernbert", "xlm_roberta", "generic"):
    PretrainedTokenizer.load(r"{GOLDENS}/" + case).encode(["a"])
assert not {{"transformers", "torch", "jax"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("case", CASES)
def test_half_surrogates_are_replaced(case):
    tokenizer = pretrained(case)
    assert tokenizer.encode(["a\ud800b\udfff"]) == tokenizer.encode(["a\ufffdb\ufffd"])
    assert tokenizer.spans("a\ud800b") == tokenizer.spans("a\ufffdb")
    assert tokenizer.encode([]) == []


@pytest.mark.parametrize("case", CASES)
def test_pieces_and_ids_are_opposites(case):
    tokenizer = pretrained(case)
    ids = [token for row in tokenizer.encode(TEXTS) for token in row]
    assert [tokenizer.token_id(piece) for piece in tokenizer.pieces(ids)] == ids
    assert max(ids) < tokenizer.size and tokenizer.token_id("no such piece") is None
    assert tokenizer.pieces([tokenizer.size - 1, tokenizer.size])[1] == "" != tokenizer.pieces([tokenizer.size - 1])[0]


def test_decode():
    tokenizer = pretrained("published_wordpiece")
    row = whole(tokenizer, "The cat sleeps.")
    assert tokenizer.decode([*row, tokenizer.mask_id, -1, -1]) == "the cat sleeps."
    japanese = pretrained("bert_japanese")
    assert japanese.decode(whole(japanese, "東京には山があります。")) == "東京 に は 山 が あり ます 。"


@pytest.mark.parametrize("case", CASES)
def test_survives_pickling_and_the_disk(case, tmp_path):
    tokenizer, folder = pretrained(case), GOLDENS / case
    tokenizer.save(tmp_path)
    for name in (*VOCABULARIES, *OTHERS):
        assert (tmp_path / name).exists() == (folder / name).exists()
        if (folder / name).exists():
            assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    for other in (pickle.loads(pickle.dumps(tokenizer)), load_tokenizer(tmp_path)):
        assert other == tokenizer and hash(other) == hash(tokenizer) and other.fingerprint == tokenizer.fingerprint
        assert other.encode(TEXTS) == tokenizer.encode(TEXTS)
    assert len(repr(tokenizer)) < 100


def test_the_fingerprint_tells_files_and_models_apart(tmp_path):
    names = ("published_wordpiece", "colbert_wordpiece", "vocabulary_file")
    assert len({pretrained(name).fingerprint for name in names}) == 3
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 9}')
    pretrained("published_wordpiece").save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["hidden_size"] == 9, "the model's own file is kept"
    assert load_tokenizer(tmp_path).fingerprint == pretrained("published_wordpiece").fingerprint


def test_load_tokenizer_takes_a_file_for_a_vocabulary_of_ours(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "vocabulary.model")
    assert load_tokenizer(tmp_path / "vocabulary.model") == vocabulary
    assert isinstance(vocabulary, TextTokenizer) and isinstance(pretrained("llama"), TextTokenizer)
    with pytest.raises(InputError, match="no vocabulary"):
        load_tokenizer(tmp_path / "missing")
    assert isinstance(load_tokenizer(tmp_path / "vocabulary.model"), Tokenizer)


def marked(case: str, text: str) -> list[tuple[str, str]]:
    tokenizer = pretrained(case)
    pieces = tokenizer.pieces(tokenizer.encode([text])[0])
    return [(piece, text[begin:end]) for piece, (begin, end) in zip(pieces, tokenizer.spans(text), strict=True)]


def test_spans_by_hand():
    assert marked("bert_japanese", "ＡＢ東京㍿、 北海道。") == [
        ("[UNK]", "ＡＢ"),
        ("東京", "東京"),
        ("[UNK]", "㍿"),  # 株式
        ("[UNK]", "㍿"),  # 会社
        ("、", "、"),
        ("北海道", "北海道"),
        ("。", "。"),
    ]
    assert [text for _, text in marked("xlm_roberta", "the  sea.")][-1] == "."
    for case in ("roberta", "xlm_roberta", "llama", "qwen", "published_wordpiece"):
        found = marked(case, "The river meets  the sea")
        assert "".join(text.strip() for _, text in found) == "Therivermeetsthesea", case
        assert all(piece.strip("▁Ġ#").lower() in ("", text.lower(), "[unk]") for piece, text in found), found
    assert marked("roberta", "é") == [("Ã", "é"), ("©", "é")]


@pytest.mark.parametrize("case", CASES)
def test_spans_are_ordered(case):
    for text in TEXTS:
        spans = [span for span in pretrained(case).spans(text) if span[0] < span[1]]
        assert all(first[0] <= second[0] for first, second in itertools.pairwise(spans)), text


@pytest.mark.parametrize(
    ("case", "skipped", "kept"),
    [
        ("published_wordpiece", [".", ",", "?", "。", "።"], ["a", "##a", "[SEP]", "[MASK]"]),
        ("roberta", [".", ",", "Ġ", "Ċ"], ["a", "Ġa", "¡", "Â", "<s>"]),
        ("xlm_roberta", ["▁", ".", "。"], ["▁a", "<mask>", "a"]),
        ("bert_japanese", ["。", "、", "##。", "!"], ["東京", "[unused0]", "##a"]),
    ],
)
def test_skiplist(case, skipped, kept):
    tokenizer = pretrained(case)
    found = tokenizer.pieces(sorted(tokenizer.skiplist()))
    assert set(skipped) <= set(found) and not set(kept) & set(found)


def test_load_refuses_what_is_no_tokeniser(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        PretrainedTokenizer.load(tmp_path / "missing")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match=r"no tokeniser.*one of tokenizer\.json, vocab\.txt"):
        PretrainedTokenizer.load(tmp_path)
    good = (GOLDENS / "published_wordpiece" / "tokenizer.json").read_text()
    for content, message in [
        (good[:1000], r"tokenizer\.json: broken JSON.*Copy the file again"),
        ("[]", r"tokenizer\.json: not a JSON object"),
        ('{"model": {}}', r"tokenizer\.json: not a tokeniser"),
    ]:
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(InputError, match=message):
            PretrainedTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(InputError, match="no tokeniser can be made of it"):
        PretrainedTokenizer.load(tmp_path)


def test_load_names_the_package_that_japanese_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "fugashi", None)
    with pytest.raises(InputError, match=r"fugashi.*pip install jaxret\[ja\]"):
        PretrainedTokenizer.load(GOLDENS / "bert_japanese")
    monkeypatch.delitem(sys.modules, "fugashi")
    monkeypatch.setitem(sys.modules, "unidic_lite", None)
    with pytest.raises(InputError, match=r"unidic_lite.*pip install jaxret\[ja\]"):
        PretrainedTokenizer.load(GOLDENS / "bert_japanese")
