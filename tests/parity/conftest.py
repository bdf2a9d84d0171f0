"""Copies of golden checkpoints, with fields of their JSON changed."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.parity.cases import Case


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """`copied(case, {file: {field: value}})`: a copy without the goldens; a value of None removes the field."""

    def copy(name: str, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
        folder = tmp_path / name
        shutil.copytree(Case(name).folder, folder, ignore=shutil.ignore_patterns("golden.npz", "texts.json"))
        for file, fields in (changes or {}).items():
            record = json.loads((folder / file).read_text())
            record |= fields
            record = {key: value for key, value in record.items() if value is not None}
            (folder / file).write_text(json.dumps(record))
        return folder

    return copy
