"""JSON files of a checkpoint, and fields of them, with errors that name both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxret.errors import InputError
from jaxret.files import read_json


def record_in(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """The object in a JSON file; empty where the file is `optional` and absent.

    Raises:
      InputError: no such file, broken JSON, or not an object.
    """
    if optional and not path.is_file():
        return {}
    record = read_json(path)
    if not isinstance(record, dict):
        raise InputError(path, "not a JSON object", "Copy the file again.")
    return record


def field(record: Mapping[str, Any], name: str, kind: type, place: Path, default: Any = None) -> Any:
    """A field's value, or `default` where the record lacks it or says null.

    Raises:
      InputError: it is not of that kind, or it is absent and there is no default.
    """
    value = record.get(name)
    value = default if value is None else value
    if value is None:
        raise InputError(place, f"lacks {name}", "Copy the file again.")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{place}: {name}", f"{value!r} is not of type {kind.__name__}", "Mend the file.")
    return value
