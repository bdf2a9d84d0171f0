"""What turns text into ids for a published model: the `tokenizers` library, or a Python class of `transformers`."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer as Rust
from tokenizers.processors import PostProcessor

from jaxret.data.text_tokenizer import SPACE, PairFrame
from jaxret.errors import InputError

WORD_PART = "##"
_PROBES = ("a", "1 b")


class RustBackend:
    """A tokeniser of the `tokenizers` library.

    Args:
      rust: the tokeniser; its truncation and padding are turned off.
      named: the pieces with a role, {"mask_token": "[MASK]"} for example.
      truncation_side: "right" or "left".
      typed: whether the model is told the token types of a pair.
      pairs: what joins two texts, if it is not the tokeniser's own post-processor.
    """

    odd_to_first = False

    def __init__(
        self,
        rust: Rust,
        named: Mapping[str, str],
        truncation_side: str,
        typed: bool = False,
        pairs: PostProcessor | None = None,
    ):
        rust.no_truncation()
        rust.no_padding()
        self.rust, self.named, self.truncation_side = rust, dict(named), truncation_side
        self._typed, self._pairs = typed, pairs

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """All pieces and their ids."""
        return self.rust.get_vocab(with_added_tokens=True)

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the pieces that are special or have a role."""
        special = {i for i, token in self.rust.get_added_tokens_decoder().items() if token.special}
        named = {self.vocabulary[piece] for piece in self.named.values() if piece in self.vocabulary}
        return tuple(sorted(special | named))

    def encoded(self, texts: Sequence[str], whole: bool = False) -> list[list[int]]:
        """Ids of each text; `whole` with what the model puts around it."""
        return [each.ids for each in self.rust.encode_batch_fast(list(texts), add_special_tokens=whole)]

    def joined(self, first: str, second: str) -> list[tuple[int, int]]:
        """(id, token type) of two texts in one row."""
        one, two = (self.rust.encode(text, add_special_tokens=False) for text in (first, second))
        processor = self._pairs or self.rust.post_processor
        if processor is None:
            return [(token, 0) for token in (*one.ids, *two.ids)]
        whole = processor.process(one, two, True)
        return [(token, kind * self._typed) for token, kind in zip(whole.ids, whole.type_ids, strict=True)]

    def decoded(self, ids: Sequence[int]) -> str:
        """The text of ids, special ones left out."""
        return self.rust.decode(list(ids), skip_special_tokens=True)

    def token_id(self, piece: str) -> int | None:
        """The id of a piece."""
        return self.rust.token_to_id(piece)

    def piece(self, token: int) -> str:
        """The piece of an id, "" where there is none."""
        return self.rust.id_to_token(token) or ""

    def surface(self, piece: str) -> str | None:
        """What a piece looks like in a text; None for a part of a character."""
        if self._bytes_as_letters and all(letter in BYTE_OF_LETTER for letter in piece):
            try:
                return bytes(BYTE_OF_LETTER[letter] for letter in piece).decode()
            except UnicodeDecodeError:
                return None
        return piece.removeprefix(WORD_PART) if len(piece) > len(WORD_PART) else piece

    def spans(self, text: str) -> list[tuple[int, int]]:
        """[begin, end) of each piece of the text."""
        found = self.rust.encode(text, add_special_tokens=False)
        pairs = zip(found.tokens, found.offsets, strict=True)
        return [(begin, begin) if piece == SPACE else _trimmed(text, begin, end) for piece, (begin, end) in pairs]

    @cached_property
    def _bytes_as_letters(self) -> bool:
        step = self.rust.pre_tokenizer
        return step is not None and '"ByteLevel"' in json.dumps(json.loads(step.__getstate__()))


class PythonBackend:
    """A tokeniser that exists only as a Python class of `transformers`, BertJapanese for example."""

    odd_to_first = True

    def __init__(self, hugging_face: Any):
        self._hugging_face = hugging_face
        self.named: dict[str, str] = dict(hugging_face.special_tokens_map)
        self.truncation_side: str = hugging_face.truncation_side

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """All pieces and their ids."""
        return self._hugging_face.get_vocab()

    @cached_property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the pieces that are special or have a role."""
        added = self._hugging_face.added_tokens_decoder
        special = {i for i, token in added.items() if token.special}
        return tuple(sorted(special | set(self._hugging_face.all_special_ids)))

    def encoded(self, texts: Sequence[str], whole: bool = False) -> list[list[int]]:
        """Ids of each text; `whole` with what the model puts around it."""
        return [self._hugging_face(text, add_special_tokens=whole, verbose=False)["input_ids"] for text in texts]

    def joined(self, first: str, second: str) -> list[tuple[int, int]]:
        """(id, token type) of two texts in one row."""
        whole = self._hugging_face(first, second, verbose=False)
        kinds = whole.get("token_type_ids", [0] * len(whole["input_ids"]))
        return list(zip(whole["input_ids"], kinds, strict=True))

    def decoded(self, ids: Sequence[int]) -> str:
        """The text of ids, special ones left out."""
        return self._hugging_face.decode(list(ids), skip_special_tokens=True)

    def token_id(self, piece: str) -> int | None:
        """The id of a piece."""
        return self.vocabulary.get(piece)

    def piece(self, token: int) -> str:
        """The piece of an id, "" where there is none."""
        return self._pieces.get(token, "")

    @cached_property
    def _pieces(self) -> dict[int, str]:
        return {token: piece for piece, token in self.vocabulary.items()}

    def surface(self, piece: str) -> str:
        """What a piece looks like in a text."""
        return piece.removeprefix(WORD_PART) if len(piece) > len(WORD_PART) else piece

    def spans(self, text: str) -> list[tuple[int, int]]:
        """[begin, end) of each piece, found again in the text; unknown words have all up to the next known piece."""
        letters = [(letter, place) for place, character in enumerate(text) for letter in _letters(character)]
        stream, places = "".join(letter for letter, _ in letters), [place for _, place in letters]
        unknown = self.named.get("unk_token")
        pieces = [self.piece(token) for token in self.encoded([text])[0]]
        wanted = [None if piece == unknown else "".join(map(_letters, self.surface(piece))) for piece in pieces]
        begin = end = 0
        found = []
        for i, letters_of in enumerate(wanted):
            if letters_of is not None:
                place = stream.find(letters_of, end)
                begin, end = (end, end) if place < 0 else (place, place + len(letters_of))
            elif i == 0 or wanted[i - 1] is not None:
                following = next(filter(None, wanted[i:]), None)
                place = -1 if following is None else stream.find(following, end + 1)
                begin, end = end, len(stream) if place < 0 else place
            found.append(_trimmed(text, places[begin], places[end - 1] + 1) if begin < end else (0, 0))
        return found


Backend = RustBackend | PythonBackend


def surroundings(backend: Backend) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and after every text, found by trying.

    Raises:
      InputError: they differ from text to text, or no text can be encoded.
    """
    found, fix = set(), "Give one whose post-processor only adds fixed ids at both ends."
    try:
        for probe in (*_PROBES, *sorted(backend.vocabulary)[-len(_PROBES) :]):
            (bare,), (whole,) = backend.encoded([probe]), backend.encoded([probe], whole=True)
            places = [i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare]
            if bare:
                place = places[0] if places else len(whole)
                found.add((tuple(whole[:place]), tuple(whole[place + len(bare) :])))
    except Exception as error:  # the library raises nothing narrower
        raise InputError("tokenizer", f"cannot encode a text ({error})", "Give one that can.") from None
    if len(found) != 1:
        raise InputError("tokenizer", "does not put the same ids around different texts", fix)
    return found.pop()


def pair_surroundings(backend: Backend) -> PairFrame:
    """What stands around two texts in one row, found by trying.

    Raises:
      InputError: it differs from pair to pair.
    """
    found = set()
    for first, second in (_PROBES, (*_PROBES[::-1],)):
        (mine,), (theirs,) = backend.encoded([first]), backend.encoded([second])
        whole = backend.joined(first, second)
        ids = [token for token, _ in whole]
        begin = _place(ids, mine, 0)
        middle = _place(ids, theirs, begin + len(mine))
        ends = begin + len(mine), middle + len(theirs)
        parts = tuple(whole[:begin]), tuple(whole[ends[0] : middle]), tuple(whole[ends[1] :])
        found.add(PairFrame(*parts, (whole[begin][1], whole[middle][1]), backend.odd_to_first))
    if len(found) != 1:
        fix = "Give one whose post-processor only adds fixed ids around and between two texts."
        raise InputError("tokenizer", "does not put the same ids around different pairs of texts", fix)
    return found.pop()


def _place(ids: list[int], part: list[int], start: int) -> int:
    """Where the part begins, from `start` on."""
    places = [i for i in range(start, len(ids) - len(part) + 1) if ids[i : i + len(part)] == part]
    if not part or not places:
        problem = "changes a text's ids beside another text"
        raise InputError("tokenizer", problem, "Give one that encodes each text of a pair by itself.")
    return places[0]


def _trimmed(text: str, begin: int, end: int) -> tuple[int, int]:
    inside = text[begin:end]
    if not inside.strip():
        return begin, end
    return begin + len(inside) - len(inside.lstrip()), begin + len(inside.rstrip())


def _letters(character: str) -> str:
    """Compatible, decomposed, small, without spaces: how a character is looked for."""
    return "".join(unicodedata.normalize("NFKD", character).lower().split())


def _bytes_of_letters() -> dict[str, int]:
    """GPT-2's spelling: printable Latin-1 stands for itself, the other bytes for the letters from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTE_OF_LETTER = _bytes_of_letters()
