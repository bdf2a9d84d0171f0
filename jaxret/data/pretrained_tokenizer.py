"""The tokeniser of a published model, as `transformers.AutoTokenizer` would have it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from jaxret.data.text_tokenizer import PairFrame, TextTokenizer, encodable, skippable
from jaxret.data.tokenizer import Tokenizer
from jaxret.data.tokenizer_backends import Backend, pair_surroundings, surroundings
from jaxret.data.tokenizer_loading import MODEL, TOKENIZER, backend
from jaxret.errors import InputError
from jaxret.files import atomic, existing_folder, read_json

VOCABULARIES = (
    TOKENIZER,
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
)
OTHERS = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer_config.json",
)


@dataclass(frozen=True)
class PretrainedTokenizer:
    """A tokeniser made from the bytes of its files (name, content); equal when those are equal.

    Special pieces that stand in a text become their ids, as they do in `transformers`.
    """

    files: tuple[tuple[str, bytes], ...] = field(repr=False)

    @classmethod
    def load(cls, folder: str | Path) -> PretrainedTokenizer:
        """Reads the tokeniser's files of a model's folder.

        Raises:
          InputError: none is there, one is broken, or a package is missing that the class needs.
        """
        folder = existing_folder(folder)
        found = {name: (folder / name).read_bytes() for name in (*VOCABULARIES, *OTHERS) if (folder / name).is_file()}
        if not any(name in found for name in VOCABULARIES):
            raise InputError(folder, "no tokeniser", f"Give a folder with one of {', '.join(VOCABULARIES)}.")
        if (folder / MODEL).is_file():
            found[MODEL] = _identity(folder / MODEL)
        tokenizer = cls(tuple(sorted(found.items())))
        tokenizer.__dict__["_backend"] = backend(found, str(folder))
        _ = tokenizer._around
        return tokenizer

    def save(self, path: str | Path) -> None:
        """Writes the files into a folder, byte for byte, and config.json with the model's type where there is none."""
        for name, content in self.files:
            if name != MODEL or not (Path(path) / MODEL).exists():
                with atomic(Path(path) / name, "wb") as file:
                    file.write(content)

    @cached_property
    def size(self) -> int:
        """One more than the highest id."""
        return 1 + max(self._backend.vocabulary.values())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files' names and contents."""
        digest = hashlib.sha256()
        for name, content in self.files:
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()

    @property
    def begin(self) -> tuple[int, ...]:
        """The ids before a text."""
        return self._around[0]

    @property
    def end(self) -> tuple[int, ...]:
        """The ids after a text."""
        return self._around[1]

    @cached_property
    def pair_frame(self) -> PairFrame:
        """What `transformers` puts around two texts; InputError where it is not the same for all of them."""
        return pair_surroundings(self._backend)

    @property
    def mask_id(self) -> int | None:
        """The id of the mask token, None where there is none."""
        return self._role("mask_token")

    @property
    def unk_id(self) -> int | None:
        """The id of what is not in the vocabulary, None where there is none."""
        return self._role("unk_token")

    @property
    def pad_id(self) -> int | None:
        """The id of the padding token, None where there is none."""
        return self._role("pad_token")

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The ids, ascending, that stand for no text."""
        return self._backend.special_ids

    @property
    def truncation_side(self) -> str:
        """Where a long text is cut off: "right" or "left"."""
        return self._backend.truncation_side

    def token_id(self, piece: str) -> int | None:
        """The id of a piece as the vocabulary spells it; None where it is not there."""
        return self._backend.token_id(piece)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without `begin` and `end`. Half a surrogate pair is read as U+FFFD."""
        return self._backend.encoded([encodable(text) for text in texts])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, as far as the vocabulary keeps it; special ids leave nothing behind."""
        return self._backend.decoded([int(token) for token in ids if token >= 0])

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id as the vocabulary spells it; "" for an id without a piece."""
        return [self._backend.piece(int(token)) for token in ids]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each piece of `encode([text])` stands: [begin, end) in characters of the text, empty if nowhere."""
        return self._backend.spans(encodable(text))

    def skiplist(self) -> frozenset[int]:
        """Ids of pieces made of punctuation, symbols and space only, in any script."""
        return self._skiplist

    @cached_property
    def _skiplist(self) -> frozenset[int]:
        vocabulary, special = self._backend.vocabulary.items(), set(self.special_ids)
        plain = ((self._backend.surface(piece), token) for piece, token in vocabulary if token not in special)
        return frozenset(token for surface, token in plain if surface and all(map(skippable, surface)))

    @cached_property
    def _backend(self) -> Backend:
        return backend(dict(self.files), "tokenizer")

    @cached_property
    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return surroundings(self._backend)

    def _role(self, role: str) -> int | None:
        piece = self._backend.named.get(role)
        return None if piece is None else self._backend.token_id(piece)

    def __reduce__(self) -> tuple[type[PretrainedTokenizer], tuple[tuple[tuple[str, bytes], ...]]]:
        return PretrainedTokenizer, (self.files,)


def load_tokenizer(path: str | Path) -> TextTokenizer:
    """A vocabulary of ours where the path is a file, a published model's tokeniser where it is a folder."""
    return PretrainedTokenizer.load(path) if Path(path).is_dir() else Tokenizer.load(path)


def _identity(path: Path) -> bytes:
    """What of a model's configuration decides about its tokeniser."""
    record = read_json(path)
    kept = {key: record[key] for key in ("model_type", "tokenizer_class") if record.get(key)}
    return json.dumps(kept, sort_keys=True).encode()
