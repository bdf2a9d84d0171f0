"""Which backend a folder's files need: `tokenizer.json` alone where it says everything, else `transformers`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Rust

from jaxret.data.standalone import TYPES, Records, pairs_of_class, pieces_with_roles, stands_alone, takes_types
from jaxret.data.tokenizer_backends import Backend, PythonBackend, RustBackend
from jaxret.errors import InputError

TOKENIZER, MODEL = "tokenizer.json", "config.json"
_FIX = "Copy the file again."


def backend(files: Mapping[str, bytes], place: str) -> Backend:
    """The backend of a folder's files.

    Args:
      files: the content of each; `config.json` may be there for the model's type alone.
      place: names them in an error.

    Raises:
      InputError: a file is broken, or what the class needs is not installed.
    """
    if TOKENIZER in files:
        records = Records(
            tokenizer=_parsed(files, TOKENIZER, place),
            settings=_parsed(files, "tokenizer_config.json", place),
            model=_parsed(files, MODEL, place),
            special=_parsed(files, "special_tokens_map.json", place),
            added=_parsed(files, "added_tokens.json", place),
        )
        try:
            rust = Rust.from_str(files[TOKENIZER].decode())
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"{place}/{TOKENIZER}", f"not a tokeniser ({error})", _FIX) from None
        side = records.settings.get("truncation_side", "right")
        pairs, typed = pairs_of_class(rust, records), takes_types(records)
        alone = RustBackend(rust, pieces_with_roles(records), side, typed, pairs)
        if stands_alone(alone, records):
            return alone
    return _from_transformers(files, place)


def _parsed(files: Mapping[str, bytes], name: str, place: str) -> dict[str, Any]:
    try:
        found = json.loads(files.get(name, b"{}"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{place}/{name}", f"broken JSON: {error}", _FIX) from None
    if not isinstance(found, dict):
        raise InputError(f"{place}/{name}", "not a JSON object", _FIX)
    return found


def _from_transformers(files: Mapping[str, bytes], place: str) -> Backend:
    try:
        with _no_advice(), tempfile.TemporaryDirectory() as folder:
            from transformers import AutoTokenizer

            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except ImportError as error:
        raise InputError(place, f"needs another package ({error})", "For Japanese: pip install jaxret[ja]") from None
    except Exception as error:  # transformers raises nothing narrower
        fix = "Give a folder that transformers.AutoTokenizer can load."
        raise InputError(place, f"no tokeniser can be made of it ({error})", fix) from None
    if getattr(found, "is_fast", False):
        typed = TYPES in found.model_input_names
        return RustBackend(found.backend_tokenizer, found.special_tokens_map, found.truncation_side, typed)
    return PythonBackend(found)


@contextmanager
def _no_advice() -> Iterator[None]:
    """Without the advice to install torch that transformers prints when it is imported."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
