"""What published checkpoints leave to their library: our settings for it, and settings that no file of theirs holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jaxret.data.text import TextConfig
from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.errors import InputError
from jaxret.files import write_json
from jaxret.nn.config import EncoderConfig
from jaxret.runtime.layouts.records import record_in
from jaxret.runtime.model import Model

SETTINGS = "jaxret.json"
# Other libraries have no such setting, or, as with the rule of MaxSim, one for all models.
OF_OURS = {"title_separator", "precision", "attention", "maxsim"}
OF_HEADS = {
    "dense": ("dense_layers", "pooling", "pool_prompt", "truncate", "normalize", "similarity"),
    "lexical": ("lm_head", "splade_pooling", "splade_saturation", "special_ids"),
    "multi_vector": ("token_layers", "normalize_tokens", "maxsim", "skip_ids", "skip_first"),
}
PARTS = ("config", "encoder", "text", "tokenizer")


def plain_text(longest: int, **settings: Any) -> TextConfig:
    """Texts as a bare tokeniser takes them, up to `longest` ids: no markers, no expansion."""
    plain: dict[str, Any] = {"query_max_len": longest, "passage_max_len": longest}
    plain |= {"query_expansion": False, "query_marker": "", "passage_marker": ""}
    return TextConfig(**plain | settings)


def vocabulary_fields(tokenizer: TextTokenizer, expansion: int | None = None) -> dict[str, Any]:
    """What RetrieverConfig must know of a vocabulary; `expansion` is the id that fills queries up ([MASK])."""
    mask = tokenizer.mask_id if expansion is None else expansion
    return {"mask_id": -1 if mask is None else mask, "special_ids": tokenizer.special_ids}


def checked_marker(tokenizer: TextTokenizer, piece: str, place: str) -> str:
    """A marker that libraries put behind the first id; "" for none.

    Raises:
      InputError: the vocabulary lacks it, or our place for it, behind all ids that begin a text, is another one.
    """
    if piece and tokenizer.token_id(piece) is None:
        raise InputError(place, f"{piece!r} is not in the vocabulary", "Use the tokeniser that belongs to the model.")
    if piece and len(tokenizer.begin) != 1:
        problem = f"the tokeniser begins a text with {len(tokenizer.begin)} ids, not with one"
        raise InputError(place, problem, "Markers are only known behind a single [CLS].")
    return piece


def settings_in(folder: Path) -> dict[str, Any]:
    """The settings that `write_settings` left in a folder."""
    return record_in(folder / SETTINGS, optional=True)


def write_settings(folder: Path, model: Model, again: Model, layout: str, *, bare: bool) -> None:
    """Writes what of a model the folder does not say, if anything.

    Args:
      folder: where the model was just saved.
      model: what was saved.
      again: what the folder describes.
      layout: its name.
      bare: whether the layout's library leaves heads and texts to its user.

    Raises:
      InputError: the layout's library would compute something else than the model.
    """
    ours = OF_OURS | idle_fields(model) | {field.name for field in dataclasses.fields(EncoderConfig)}
    left: dict[str, Any] = {}
    pairs: list[tuple[Any, Any]] = [(model, again), (model.text, again.text), (model.config, again.config)]
    pairs.append((model.config.encoder, again.config.encoder))  # what differs is spelling, as `record_of` has checked
    for wanted, found in pairs:
        for name in _differing(wanted, found):
            left[name] = getattr(wanted, name)
            if not (bare or name in ours):
                problem = f"cannot say {name}={left[name]!r}; it would be {getattr(found, name)!r}"
                raise InputError(f"layout {layout}", problem, 'Save in the layout "jaxret", or change it.')
    kept = {name: value for name, value in left.items() if not _nested(value)}
    if kept:
        write_json(folder / SETTINGS, kept)


def idle_fields(model: Model) -> set[str]:
    """The settings that decide nothing in this model."""
    config = model.config
    idle = {field for head, fields in OF_HEADS.items() if head not in config.heads for field in fields}
    idle |= {"special_ids"} if config.lm_head or "lexical" not in config.heads else set()
    idle |= {"mask_id"} if config.attend_to_expansion else set()
    idle |= {"similarity"} if config.normalize else set()
    idle |= set() if model.text.query_prefix or model.text.passage_prefix else {"pool_prompt"}
    return idle | (set() if model.text.query_expansion else {"expansion_piece", "expansion_len"})


def _differing(wanted: Any, found: Any) -> list[str]:
    names = [field.name for field in dataclasses.fields(wanted) if field.compare and field.name not in PARTS]
    return [name for name in names if getattr(wanted, name) != getattr(found, name)]


def _nested(value: Any) -> bool:
    values = value if isinstance(value, tuple) else (value,)
    return any(dataclasses.is_dataclass(item) for item in values)
