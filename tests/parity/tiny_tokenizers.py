"""Tiny tokenisers, trained on the corpus, in the layouts of the families."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.parity.corpus import SENTENCES

BERT = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ROBERTA = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


def wordpiece(folder: Path, limit: int, size: int = 150, extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """BERT's: lower-cased WordPiece, `[CLS] text [SEP]`; `vocab.txt` beside `tokenizer.json`."""
    words = [word for sentence in SENTENCES for word in re.findall(r"\w+|[^\w\s]", sentence.lower())]
    counts = Counter(f"##{word[i:j]}" if i else word[:j] for word in words for i, j in _spans(word, 8))
    pieces = ["[PAD]", *extra, "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces += _frequent(counts, size - len(pieces), lambda piece: len(piece.removeprefix("##")) == 1)
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(BERT.values()))
    tokenizer.post_processor = _template(tokenizer, "[CLS]", "[SEP]", two_types=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    return _saved(tokenizer, folder, "BertTokenizer", limit, BERT)


def japanese_wordpiece(folder: Path, limit: int, size: int = 150, extra: tuple[str, ...] = ()) -> Any:
    """Japanese BERT's: words by MeCab with unidic-lite, then WordPiece; `vocab.txt` and no `tokenizer.json`."""
    from transformers.models.bert_japanese.tokenization_bert_japanese import BertJapaneseTokenizer, MecabTokenizer

    mecab = MecabTokenizer(mecab_dic="unidic_lite", normalize_text=True)
    words = [word for sentence in (*SENTENCES[7:10], *SENTENCES[:3]) for word in mecab.tokenize(sentence)]
    counts = Counter(f"##{word[i:j]}" if i else word[:j] for word in words for i, j in _spans(word, 8))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *extra]
    pieces += _frequent(counts, size - len(pieces), lambda piece: len(piece.removeprefix("##")) == 1)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    settings = {"do_lower_case": False, "model_max_length": limit, "tokenizer_class": "BertJapaneseTokenizer"} | {
        "word_tokenizer_type": "mecab",
        "subword_tokenizer_type": "wordpiece",
        "mecab_kwargs": {"mecab_dic": "unidic_lite"},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | BERT, indent=2) + "\n")
    return BertJapaneseTokenizer.from_pretrained(folder)


def byte_bpe(folder: Path, limit: int, special: dict[str, str], size: int = 290) -> PreTrainedTokenizerFast:
    """RoBERTa's and ModernBERT's: BPE over bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = list(dict.fromkeys(special.values()))
    mask = special["mask_token"]
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        special_tokens=[name for name in names if name != mask],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_special_tokens([_mask(mask)])
    begin, end = special["cls_token"], special["sep_token"]
    tokenizer.post_processor = _template(tokenizer, begin, end, two_types=False)
    kind = "RobertaTokenizer" if begin == "<s>" else "PreTrainedTokenizerFast"
    return _saved(tokenizer, folder, kind, limit, special)


def unigram(folder: Path, limit: int, size: int = 200, extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """XLM-R's: Unigram over pieces that begin with a low line, `<s> text </s>`.

    It is what transformers 5 makes of a tokenizer.json for XLMRobertaTokenizer, whatever else the file asks for.
    """
    words = [f"▁{word}" for sentence in SENTENCES for word in sentence.split()]
    counts = Counter(word[i:j] for word in words for i, j in _spans(word, 8))
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *extra]
    scores = [(piece, 0.0) for piece in pieces]
    chosen = _frequent(counts, size - len(pieces), lambda piece: len(piece) == 1)
    scores += [(piece, math.log(counts[piece] / sum(counts.values()))) for piece in chosen]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=pieces.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(pieces[: 4 + len(extra)])
    tokenizer.add_special_tokens([_mask("<mask>")])
    tokenizer.post_processor = _template(tokenizer, "<s>", "</s>", two_types=False)
    return _saved(tokenizer, folder, "XLMRobertaTokenizer", limit, ROBERTA)


def llama_bpe(folder: Path, limit: int, size: int = 150) -> PreTrainedTokenizerFast:
    """Mistral's and Llama's: BPE over pieces that begin with a low line, `<s> text`, no token for padding."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, **_alphabet(60))
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = _template(tokenizer, "<s>", None, two_types=False)
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _saved(tokenizer, folder, "PreTrainedTokenizerFast", limit, tokens)


def qwen_bpe(folder: Path, limit: int, size: int = 280) -> PreTrainedTokenizerFast:
    """Qwen's as its embedders use it: BPE over bytes, the padding token closes each text, nothing opens it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.post_processor = _template(tokenizer, None, "<|endoftext|>", two_types=False)
    tokens = {"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    return _saved(tokenizer, folder, "Qwen2Tokenizer", limit, tokens)


def _spans(word: str, longest: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(word)) for j in range(i + 1, min(len(word), i + longest) + 1)]


def _frequent(counts: Mapping[str, int], size: int, always: Callable[[str], bool]) -> list[str]:
    """The pieces that cover most characters, two thirds of them single ones; trainers would break ties by chance."""
    ranked = sorted(counts, key=lambda piece: (-counts[piece] * len(piece), piece))
    short = [piece for piece in ranked if always(piece)][: 2 * size // 3]
    return short + [piece for piece in ranked if not always(piece)][: size - len(short)]


def _alphabet(size: int) -> dict[str, Any]:
    """The most frequent characters, as the BPE trainer wants them; left alone it breaks ties by chance."""
    text = "".join(SENTENCES).replace(" ", "▁")
    return {"initial_alphabet": _frequent(Counter(text), 2 * size, bool)[:size], "limit_alphabet": size} | {
        "show_progress": False
    }


def _mask(name: str) -> AddedToken:
    return AddedToken(name, lstrip=True, special=True, normalized=False)


def _template(tokenizer: Tokenizer, begin: str | None, end: str | None, *, two_types: bool) -> Any:
    second = 1 if two_types else 0
    around = [name for name in (begin, end) if name]
    single = " ".join(filter(None, [begin and f"{begin}:0", "$A:0", end and f"{end}:0"]))
    pair = f"{single} $B:{second}" + (f" {end}:{second}" if end else "")
    ids = [(name, tokenizer.token_to_id(name)) for name in around]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)


def _saved(
    tokenizer: Tokenizer, folder: Path, kind: str, limit: int, special: dict[str, str]
) -> PreTrainedTokenizerFast:
    """Saves it as `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, and opens it again."""
    folder.mkdir(parents=True, exist_ok=True)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=limit, **special)
    fast.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": kind, "model_max_length": limit}
    path.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return fast
