"""Tiny tokenisers in the layouts of published models, and the ids that transformers.AutoTokenizer gives.

Run in the root of the project: `PYTHONPATH=. .venv/bin/python tests/parity/make_tokenizer_goldens.py`. No torch needed.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import transformers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.parity.corpus import SENTENCES
from tests.parity.tiny_tokenizers import BERT, ROBERTA, byte_bpe, llama_bpe, qwen_bpe, unigram, wordpiece

GOLDENS = Path(__file__).parents[1] / "goldens" / "tokenizers"
CUT = 9
TEXTS = [
    "",
    " ",
    "The cat sleeps under a tree, alone.",
    "  two   spaces,\ttab\nand line \u3000 ",
    "Naïve CAFÉ e\u0301 İstanbul ΣΑΣ ﬁn ﷺ ½",
    "東京の北には山があります。梅雨がないのは北海道です。",
    "ｶﾞｷﾞ ＡＢＣ １２３ ㍿ ― 〜 ー",
    "አዲስ አበባ የኢትዮጵያ ዋና ከተማ ናት።",
    "ወንዙ ወደ ባሕር ይፈስሳል፤ بحر هنا. नदी समुद्र",
    "😀👩‍👩‍👧‍👦🇯🇵 \U0010ffff",
    "NUL \0 and \x07 \x7f \ufeff \u200b \u00ad",
    "[MASK] [CLS][PAD] [Q] [UNK] </s> <s><mask> <unk> <pad> <|endoftext|> [unused0] <0xE3> ▁▁ ##ing",
    "a[MASK] b <mask>.[SEP]c [Q] [D] x[Q] y",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "don't they're I'll 3.14 10,000 a@b.c https://x.y/z?a=b&c",
    "x" * 120,
    "the river and the sea " * 12,
    "北海道" * 20,
]
JAPANESE = "東京 京都 北 北海道 道 には に は 山 が あり ます 。 、 梅雨 ない の と どこ です か 川 海 へ 流れる"


def published_wordpiece(folder: Path) -> None:
    """As all-MiniLM-L6-v2: the files of release 3, a cut and padding inside tokenizer.json."""
    wordpiece(folder, 64)
    settings = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None, **BERT}
    write(folder, "tokenizer_config.json", settings | {"model_max_length": 64, "tokenizer_class": "BertTokenizer"})
    write(folder, "special_tokens_map.json", BERT)
    write(folder, "config.json", {"model_type": "bert", "hidden_size": 8})
    rust = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rust.enable_truncation(16)
    rust.enable_padding(length=16)
    rust.save(str(folder / "tokenizer.json"))


def colbert_wordpiece(folder: Path) -> None:
    """As colbertv2.0 with the files of release 4: ids beside flags, and [unused] pieces for the markers."""
    wordpiece(folder, 64, extra=("[unused0]", "[unused1]"))
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    settings = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None, **BERT}
    settings |= {"added_tokens_decoder": {str(token.pop("id")): token for token in added}}
    write(folder, "tokenizer_config.json", settings | {"tokenizer_class": "BertTokenizer", "model_max_length": 64})
    write(folder, "config.json", {"model_type": "bert"})


def wrong_case_wordpiece(folder: Path) -> None:
    """A cased tokenizer.json whose settings say nothing of case: AutoTokenizer lowers it all the same."""
    wordpiece(folder, 64)
    rust = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=False)
    rust.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})


def vocabulary_file(folder: Path) -> None:
    """As older multilingual BERTs: vocab.txt and no tokenizer.json."""
    with tempfile.TemporaryDirectory() as other:
        wordpiece(Path(other), 64)
        shutil.copy(Path(other) / "vocab.txt", folder)
    write(folder, "tokenizer_config.json", {"do_lower_case": False, "model_max_length": 64})
    write(folder, "config.json", {"model_type": "bert"})


def roberta(folder: Path) -> None:
    """As roberta-base and Granite R1: <mask> takes the space before it."""
    byte_bpe(folder, 64, ROBERTA)
    mask = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
    write(folder, "special_tokens_map.json", ROBERTA | {"mask_token": mask})
    write(folder, "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": False} | ROBERTA)
    write(folder, "config.json", {"model_type": "roberta"})


def pylate_modernbert(folder: Path) -> None:
    """As a PyLate model over ModernBERT: the markers are added pieces that end with a space."""
    byte_bpe(folder, 64, BERT)
    rust = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rust.add_tokens([AddedToken("[Q] ", normalized=True), AddedToken("[D] ", normalized=True)])
    rust.save(str(folder / "tokenizer.json"))
    added = json.loads(rust.to_str())["added_tokens"]
    settings = {"added_tokens_decoder": {str(token.pop("id")): token for token in added}, **BERT}
    settings |= {"truncation_side": "left", "tokenizer_class": "PreTrainedTokenizerFast"}
    write(folder, "tokenizer_config.json", settings)
    write(folder, "config.json", {"model_type": "modernbert"})


def xlm_roberta_file(folder: Path) -> None:
    """As xlm-roberta-base and BGE-M3 without tokenizer.json: a SentencePiece model."""
    (folder / "sentencepiece.bpe.model").write_bytes(trained("unigram", byte_fallback=False, normalized=True))
    write(folder, "tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 64})
    write(folder, "config.json", {"model_type": "xlm-roberta"})


def xlm_roberta(folder: Path) -> None:
    """As BGE-M3 and granite-multilingual: tokenizer.json made of the SentencePiece model."""
    with tempfile.TemporaryDirectory() as other:
        xlm_roberta_file(Path(other))
        rust = transformers.AutoTokenizer.from_pretrained(other).backend_tokenizer
    rust.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    rust.save(str(folder / "tokenizer.json"))
    added = json.loads(rust.to_str())["added_tokens"]
    settings = {"added_tokens_decoder": {str(token.pop("id")): token for token in added}, **ROBERTA}
    write(folder, "tokenizer_config.json", settings | {"tokenizer_class": "XLMRobertaTokenizer"})
    write(folder, "config.json", {"model_type": "xlm-roberta"})


def other_xlm_roberta(folder: Path) -> None:
    """A tokenizer.json whose normaliser XLMRobertaTokenizer does not have: AutoTokenizer ignores it."""
    unigram(folder, 64)


def llama(folder: Path) -> None:
    """As Mistral 7B: <s> before the text, nothing after it, no token to pad with."""
    llama_bpe(folder, 64)
    write(folder, "config.json", {"model_type": "mistral"})


def llama_file(folder: Path) -> None:
    """As an older Llama: tokenizer.model alone, unknown characters become bytes."""
    (folder / "tokenizer.model").write_bytes(trained("bpe", byte_fallback=True, normalized=False))
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": True}
    write(folder, "tokenizer_config.json", settings | {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    write(folder, "config.json", {"model_type": "llama"})


def qwen(folder: Path) -> None:
    """As Qwen3-Embedding: <|endoftext|> after the text."""
    qwen_bpe(folder, 64)
    write(folder, "config.json", {"model_type": "qwen3"})


def bert_japanese(folder: Path) -> None:
    """As bert-base-japanese-v3 and JaColBERT: MeCab's words, then WordPiece."""
    letters = dict.fromkeys("".join(SENTENCES[7:10]) + "abcdefghijklmnopqrstuvwxyz0123456789!#$&(),.-")
    pieces = [*BERT.values(), "[unused0]", "[unused1]", *JAPANESE.split(), *letters, *(f"##{each}" for each in letters)]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in dict.fromkeys(pieces)), encoding="utf-8")
    settings = {"tokenizer_class": "BertJapaneseTokenizer", "do_lower_case": False, "word_tokenizer_type": "mecab"}
    settings |= {"subword_tokenizer_type": "wordpiece", "mecab_kwargs": {"mecab_dic": "unidic_lite"}}
    write(folder, "tokenizer_config.json", settings)
    write(folder, "config.json", {"model_type": "bert"})


def generic(folder: Path) -> None:
    """Words of white space, small letters, [CLS] and two [SEP]: nothing but tokenizer.json says so."""
    words = dict.fromkeys(" ".join(SENTENCES).lower().split())
    rust = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*BERT.values(), *words])}, unk_token="[UNK]"))
    rust.normalizer, rust.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    rust.add_special_tokens(list(BERT.values()))
    ids = [(name, rust.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    rust.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP] [SEP]", special_tokens=ids)
    rust.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | BERT)
    write(folder, "config.json", {"model_type": "bert"})


CASES: tuple[Callable[[Path], None], ...] = (
    published_wordpiece,
    colbert_wordpiece,
    wrong_case_wordpiece,
    vocabulary_file,
    roberta,
    pylate_modernbert,
    xlm_roberta_file,
    xlm_roberta,
    other_xlm_roberta,
    llama,
    llama_file,
    qwen,
    bert_japanese,
    generic,
)


def trained(kind: str, *, byte_fallback: bool, normalized: bool) -> bytes:
    """A SentencePiece model with a few normalisation rules: the usual ones take 240 kB."""
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # the name of the rules goes into the model
        Path("rules.tsv").write_text("FF21\t41\nFF22\t42\n3000\t20\nFB01\t66 69\n338D\t33\n")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES * 2),
            model_writer=model,
            vocab_size=420 if byte_fallback else 220,
            hard_vocab_limit=False,
            model_type=kind,
            byte_fallback=byte_fallback,
            **({"normalization_rule_tsv": "rules.tsv"} if normalized else {"normalization_rule_name": "identity"}),
            num_threads=1,
            minloglevel=2,
        )
    return model.getvalue()


def write(folder: Path, name: str, record: dict[str, Any]) -> None:
    """One file of settings."""
    (folder / name).write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def golden(folder: Path) -> dict[str, Any]:
    """What AutoTokenizer makes of the texts."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return {
        "transformers": transformers.__version__,
        "class": type(tokenizer).__name__,
        "ids": [tokenizer(text)["input_ids"] for text in TEXTS],
        "cut": [tokenizer(text, truncation=True, max_length=CUT)["input_ids"] for text in TEXTS],
        "special_ids": sorted(set(tokenizer.all_special_ids)),
        **{role: getattr(tokenizer, role) for role in ("mask_token_id", "unk_token_id", "pad_token_id")},
    }


def main(chosen: list[str]) -> None:
    """Makes the cases that are named, or all of them."""
    for case in CASES:
        if chosen and case.__name__ not in chosen:
            continue
        folder = GOLDENS / case.__name__
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        case(folder)
        found = json.dumps(golden(folder), ensure_ascii=True)
        (GOLDENS / f"{case.__name__}.json").write_text(found.replace("]], ", "]],\n").replace("], [", "],\n [") + "\n")
    (GOLDENS / "texts.json").write_text(json.dumps(TEXTS, ensure_ascii=True, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
