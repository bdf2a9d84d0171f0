"""Whether `tokenizer.json` alone gives the ids that `transformers.AutoTokenizer` (release 5) gives.

Some classes of transformers ignore parts of the file and build them anew, and other files add pieces to it. Where
that could change an id the answer is no, and transformers is asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Rust
from tokenizers.processors import PostProcessor, TemplateProcessing

from jaxret.data.text_tokenizer import SPACE
from jaxret.data.tokenizer_backends import RustBackend, surroundings

GENERIC = "TokenizersBackend"  # takes the file as it is
TYPES = "token_type_ids"
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_EXTRA = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("lstrip", "rstrip", "normalized", "single_word")
_BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
_ROBERTA = dict(zip(_ROLES, ("<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"), strict=True))
_PIECES_OF_CLASS: dict[str | None, dict[str, str]] = {
    "BertTokenizer": _BERT,
    "RobertaTokenizer": _ROBERTA,
    "XLMRobertaTokenizer": _ROBERTA,
}
_CLASS_OF_MODEL = {
    "bert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "xlm-roberta-xl": GENERIC,
    "modernbert": GENERIC,
}
_ENDS = {
    "BertTokenizer": ("cls_token", "sep_token"),
    "RobertaTokenizer": ("cls_token", "sep_token"),
    "XLMRobertaTokenizer": ("bos_token", "eos_token"),
}
_TWO_ENDS = "{begin}:0 $A:0 {end}:0 {end}:0 $B:0 {end}:0"
_PAIR_OF_CLASS = {
    "BertTokenizer": "{begin}:0 $A:0 {end}:0 $B:1 {end}:1",
    "RobertaTokenizer": _TWO_ENDS,
    "XLMRobertaTokenizer": _TWO_ENDS,
}


@dataclass(frozen=True)
class Records:
    """The parsed files of a folder; empty where there is none.

    Attributes:
      tokenizer: tokenizer.json.
      settings: tokenizer_config.json.
      model: config.json.
      special: special_tokens_map.json.
      added: added_tokens.json.
    """

    tokenizer: Mapping[str, Any]
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    special: Mapping[str, Any]
    added: Mapping[str, Any]

    @property
    def class_name(self) -> str | None:
        """The class that AutoTokenizer takes, where it is known here; None where it may be any other."""
        usual = _CLASS_OF_MODEL.get(self.model.get("model_type", ""))
        if usual in (None, GENERIC) or "auto_map" in self.settings:
            return None if "auto_map" in self.settings else usual
        declared = self.settings.get("tokenizer_class") or self.model.get("tokenizer_class") or usual
        name = declared.removesuffix("Fast").replace("PreTrainedTokenizer", GENERIC)
        return name if name in (usual, GENERIC) else None

    @property
    def naming(self) -> list[Mapping[str, Any]]:
        """The files that give pieces their roles; settings with ids of pieces make the older files void."""
        return [self.settings] if "added_tokens_decoder" in self.settings else [self.settings, self.special]


def pieces_with_roles(records: Records) -> dict[str, str]:
    """{"mask_token": "[MASK]"} and so on: what the class has, changed by the files."""
    found = dict(_PIECES_OF_CLASS.get(records.class_name, {}))
    for record in records.naming:
        found |= {role: _content(record[role]) for role in _ROLES if record.get(role)}
    return found


def takes_types(records: Records) -> bool:
    """Whether the class gives the model token types."""
    inputs = records.settings.get("model_input_names")
    return records.class_name == "BertTokenizer" if inputs is None else TYPES in inputs


def pairs_of_class(rust: Rust, records: Records) -> PostProcessor | None:
    """What the class builds to join two texts, whatever tokenizer.json says of them; None where it takes the file's."""
    name, named = records.class_name, pieces_with_roles(records)
    roles = _ENDS.get(name or "", ())
    ids = {named[role]: rust.token_to_id(named[role]) for role in roles if role in named}
    if name not in _PAIR_OF_CLASS or len(roles) != 2 or not ids or None in ids.values():
        return None
    begin, end = (named[role] for role in roles)
    pair = _PAIR_OF_CLASS[name].format(begin=begin, end=end)
    return TemplateProcessing(single=f"{begin}:0 $A:0 {end}:0", pair=pair, special_tokens=list(ids.items()))


def stands_alone(backend: RustBackend, records: Records) -> bool:
    """Whether the backend, made of tokenizer.json alone, has the ids that AutoTokenizer has."""
    name = records.class_name
    if name is None or records.settings.get("split_special_tokens"):
        return False
    if not _adds_nothing(backend, records):
        return False
    return name == GENERIC or _would_be_built(backend, records, name)


def _adds_nothing(backend: RustBackend, records: Records) -> bool:
    """Whether the other files add no piece to those of tokenizer.json, nor change one."""
    ours = {token["content"]: token for token in records.tokenizer.get("added_tokens", [])}
    decoder = records.settings.get("added_tokens_decoder")
    described = [] if decoder is None else [each | {"id": int(token)} for token, each in decoder.items()]
    if decoder is not None and records.class_name != GENERIC and len(decoder) != len(ours):
        return False
    if decoder is None and any(ours.get(piece, {}).get("id") != token for piece, token in records.added.items()):
        return False
    if not all(_same_piece(ours, each, (*_FLAGS, "special", "id")) for each in described):
        return False
    named = [piece for record in records.naming for piece in _named(record)]
    return {*backend.named.values(), *map(_content, named)} <= ours.keys() and all(
        _same_piece(ours, piece, _FLAGS) for piece in named if isinstance(piece, dict)
    )


def _named(record: Mapping[str, Any]) -> Iterator[Any]:
    """The pieces in a record's settings: strings, or dicts with flags."""
    for key, value in record.items():
        if (key in _ROLES and value) or (isinstance(value, dict) and "content" in value):
            yield value
        elif key in _EXTRA:
            yield from value or ()


def _content(piece: Any) -> str:
    return piece["content"] if isinstance(piece, dict) else piece


def _same_piece(ours: Mapping[str, Any], piece: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    mine = ours.get(piece["content"], {"id": None})
    return all(mine.get(key) == piece.get(key, False) for key in keys)


def _would_be_built(backend: RustBackend, records: Records, name: str) -> bool:
    """Whether the class would build the parts that tokenizer.json has."""
    rust, settings = backend.rust, records.settings
    ends = tuple((backend.token_id(backend.named[role]),) for role in _ENDS[name])
    parts = {
        "normalizer": _state(rust.normalizer),
        "pre_tokenizer": _state(rust.pre_tokenizer),
        "model": _without_defaults(records.tokenizer["model"]),
    }
    if name == "XLMRobertaTokenizer" and (parts["normalizer"] or {}).get("type") == "Precompiled":
        parts["normalizer"] = None  # the class takes this one, and this one only, from the file
    built = {"BertTokenizer": _bert, "RobertaTokenizer": _roberta, "XLMRobertaTokenizer": _xlm_roberta}[name]
    return surroundings(backend) == ends and parts == built(settings, backend.named)


def _bert(settings: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
            "strip_accents": settings.get("strip_accents"),
            "lowercase": settings.get("do_lower_case", True),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "unk_token": named["unk_token"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
    }


def _roberta(settings: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    spaced = settings.get("add_prefix_space", False)
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": spaced, "use_regex": True},
        "model": {},
    }


def _xlm_roberta(settings: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    scheme = "always" if settings.get("add_prefix_space", True) else "never"
    mark = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": True}
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, mark]},
        "model": {"unk_id": 3},
    }


def _state(part: Any) -> dict[str, Any] | None:
    """The settings of a part of a tokeniser that change ids."""
    if part is None:
        return None
    return {key: value for key, value in json.loads(part.__getstate__()).items() if key != "trim_offsets"}


def _without_defaults(model: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model without its pieces, its type and what is off."""
    return {key: value for key, value in model.items() if value and key not in ("type", "vocab", "merges")}
