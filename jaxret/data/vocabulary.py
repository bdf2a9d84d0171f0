"""The special ids, and training a SentencePiece vocabulary from any corpus."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator

import numpy as np
import sentencepiece

from jaxret.errors import InputError

PAD, UNK, CLS, SEP, MASK, QUERY, DOCUMENT = range(7)
SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[Q]", "[D]")
# Cut here, and at LONGEST_SENTENCE (4000 bytes at most): sentencepiece silently drops lines over 4192 bytes.
SENTENCE_END = re.compile(r"(?<=[。．！？።।])|(?<=[.!?])\s+|[\r\n]+")
LONGEST_SENTENCE = 1000
# The sums of the EM steps depend on the number of threads, not on the number of cores.
NUM_THREADS = 16


def trained_vocabulary(
    texts: Iterable[str],
    size: int,
    *,
    model_type: str = "unigram",
    character_coverage: float = 0.9995,
    sample: int | None = 20_000,
    seed: int = 0,
) -> bytes:
    """A SentencePiece model, serialized; the same for the same arguments.

    Args:
      texts: passages of any length; they are cut at sentence ends.
      size: the number of ids, with 7 special ids and 256 bytes among them.
      model_type: "unigram" or "bpe".
      character_coverage: the share of the characters that get ids of their own; the rest are spelled in bytes.
      sample: the number of sentences to learn from, drawn at random; None for all of them. 20,000 Japanese sentences
        take about 10 s on 2 cores, and 80,000 about 40 s for 0.2% fewer tokens.
      seed: of the draw.

    Raises:
      InputError: no text, or a size that these texts cannot fill or that cannot hold their characters.
    """
    if model_type not in ("unigram", "bpe"):
        raise InputError("model_type", f"unknown kind {model_type!r}", 'Choose "unigram" or "bpe".')
    chosen = _sample(_sentences(texts), sample, seed)
    if not chosen:
        raise InputError("texts", "no text to learn a vocabulary from", "Give at least one passage.")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(chosen),
            model_writer=model,
            vocab_size=size,
            model_type=model_type,
            character_coverage=character_coverage,
            byte_fallback=True,
            normalization_rule_name="nmt_nfkc",
            pad_id=PAD,
            unk_id=UNK,
            bos_id=CLS,
            eos_id=SEP,
            pad_piece=SPECIAL_PIECES[PAD],
            unk_piece=SPECIAL_PIECES[UNK],
            bos_piece=SPECIAL_PIECES[CLS],
            eos_piece=SPECIAL_PIECES[SEP],
            control_symbols=list(SPECIAL_PIECES[MASK:]),
            num_threads=NUM_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _size_error(size, str(error)) from error
    return model.getvalue()


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for sentence in SENTENCE_END.split(text.replace("\0", " ")):
            for begin in range(0, len(sentence), LONGEST_SENTENCE):
                if part := sentence[begin : begin + LONGEST_SENTENCE].strip():
                    yield part


def _sample(sentences: Iterable[str], sample: int | None, seed: int) -> list[str]:
    """At most `sample` of the sentences, each as likely as another, in one pass (Vitter's algorithm R)."""
    if sample is None:
        return list(sentences)
    generator, kept = np.random.default_rng(seed), []
    for i, sentence in enumerate(sentences):
        if i < sample:
            kept.append(sentence)
        elif (place := generator.integers(i + 1)) < sample:
            kept[place] = sentence
    return kept


def _size_error(size: int, message: str) -> Exception:
    if high := re.search(r"too high .*<= (\d+)", message):
        fix = f"Ask for at most {high[1]}, or give more text."
        return InputError("size", f"{size} ids are more than these texts can fill", fix)
    if low := re.search(r"smaller than required_chars. \d+ vs (\d+)", message):
        fix = f"Ask for at least {low[1]}, or lower character_coverage."
        return InputError("size", f"{size} ids cannot hold the special ids, the bytes and these texts' characters", fix)
    return RuntimeError(f"sentencepiece: {message}")
