from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.data.beir import read_corpus, read_queries
from jaxret.data.text import TextConfig
from jaxret.data.tokenizer import MASK, Tokenizer, trained_vocabulary
from jaxret.errors import InputError
from jaxret.nn.config import EncoderConfig
from jaxret.nn.retriever import RetrieverConfig
from jaxret.ops.maxsim import maxsim
from jaxret.runtime.layouts import load_pretrained
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import Model
from jaxret.search.alignment import alignment
from jaxret.search.encode import TextEncoder
from tests.parity.cases import Case

DEMO = Path(__file__).parents[2] / "data/jsquad"
LONG = 24


@pytest.fixture(scope="module")
def japanese() -> Tokenizer:
    return Tokenizer(trained_vocabulary(read_corpus(DEMO).texts[:100], 2500, model_type="bpe"))


def encoder(tokenizer: Tokenizer, text: TextConfig, heads: tuple[str, ...] = ("multi_vector",)) -> TextEncoder:
    body = EncoderConfig(vocab_size=tokenizer.size, width=16, num_layers=1, num_heads=2, mlp_width=16)
    config = RetrieverConfig(body, heads, token_layers=(8,), skip_ids=tuple(sorted(tokenizer.skiplist())))
    model = Model(config, text, tokenizer)
    return TextEncoder(model, model.init(3), device_mesh((1, 1, 1), jax.devices()[:1]), batch_tokens=256)


@pytest.fixture(scope="module")
def tiny(japanese: Tokenizer) -> TextEncoder:
    return encoder(japanese, TextConfig(query_max_len=16, passage_max_len=LONG))


@pytest.mark.parametrize("row", [0, 7, 30])
def test_adds_up_to_maxsim(tiny: TextEncoder, row: int):
    query, passage = read_queries(DEMO).texts[row], read_corpus(DEMO).texts[row]
    found = alignment(tiny, query, passage)
    q, d = tiny.queries([query]).tokens.values, tiny.passages([passage]).tokens.values
    masks = [jnp.ones((1, len(x)), bool) for x in (q, d)]
    expected = maxsim(jnp.asarray(q)[None], jnp.asarray(d)[None], *masks)[0, 0]
    assert found.maxsim == pytest.approx(float(expected), abs=1e-5)
    loop = [max(range(len(d)), key=lambda t: float(np.dot(token, d[t]))) for token in q]
    assert found.chosen.tolist() == loop
    assert found.scores.shape == (len(found.query_pieces), len(found.passage_pieces))


def test_pieces_are_those_that_take_part(tiny: TextEncoder):
    found = alignment(tiny, "日本は？", "日本、「東京」。")
    assert found.query_pieces[:2] == ["[CLS]", "[Q]"]
    assert len(found.query_pieces) == 16
    assert [piece == "[MASK]" for piece in found.query_pieces] == found.expansion.tolist()
    assert found.expansion.any()
    assert found.passage_pieces[:2] == ["[CLS]", "[D]"] and found.passage_pieces[-1] == "[SEP]"
    assert not set("、「」。") & set("".join(found.passage_pieces))


def test_spans_are_of_the_passage_without_its_prefix(japanese: Tokenizer):
    config = TextConfig(passage_prefix="文: ", query_max_len=8, passage_max_len=LONG, query_expansion=False)
    passage = read_corpus(DEMO).texts[5]
    found = alignment(encoder(japanese, config), "何か", passage)
    assert not found.expansion.any() and MASK not in found.expansion.tolist()
    assert len(found.passage_spans) == len(found.passage_pieces)
    whole = [
        (piece, passage[begin:end])
        for piece, (begin, end) in zip(found.passage_pieces, found.passage_spans, strict=True)
        if begin < end and not piece.startswith("<0x") and begin > 0
    ]
    assert len(whole) > 8
    for piece, cut in whole:
        assert piece.replace("▁", "").strip() == cut.strip()
    assert max(end for _, end in found.passage_spans) <= found.passage_read < len(passage)


def test_all_of_a_short_passage_is_read_though_its_last_token_is_skipped(tiny: TextEncoder):
    passage = "日本、「東京」。"
    found = alignment(tiny, "日本", passage)
    assert found.passage_read == len(passage) > max(end for _, end in found.passage_spans)


def test_needs_the_head(japanese: Tokenizer):
    with pytest.raises(InputError, match=r"no multi_vector head, only dense"):
        alignment(encoder(japanese, TextConfig(), ("dense",)), "a", "b")


@pytest.mark.parametrize("name", ["bge_m3", "colbert_japanese", "mv6_bert", "pylate_bert"])
def test_published_models_add_up_to_their_own_score(name: str):
    mesh = device_mesh((1, 1, 1), jax.devices()[:1])
    model, params = load_pretrained(Case(name).folder, mesh)
    published = TextEncoder(model, params, mesh)
    query, passage = "rain", "The cat sleeps, alone."
    found = alignment(published, query, passage)
    q, d = published.queries([query]).tokens.values, published.passages([passage]).tokens.values
    assert found.scores.shape == (len(found.query_pieces), len(found.passage_pieces)) == (len(q), len(d))
    assert found.maxsim == pytest.approx(float((q @ d.T).max(axis=1).sum()), abs=1e-5)
    assert found.expansion.any() == model.text.query_expansion
    words = [piece for piece, special in zip(found.query_pieces, found.special, strict=True) if not special]
    assert words and not {"[CLS]", "<s>", "[SEP]", "</s>", "[MASK]", "[unused0]"} & set(words)
    if name == "bge_m3":
        assert found.query_pieces[0] != "<s>" and found.passage_pieces[0] != "<s>"
