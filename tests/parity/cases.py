"""The golden cases: tiny checkpoints in their original layouts, and what PyTorch made of them. numpy and json only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

CHECKPOINTS = Path(__file__).parents[1] / "goldens" / "checkpoints"
LAYOUTS = (
    "transformers",
    "masked_lm",
    "sentence_transformers",
    "sparse",
    "multi_vector",
    "colbert",
    "bge_m3",
    "pylate",
    "cross_encoder",
)
RETRIEVERS = LAYOUTS[:-1]


@dataclass(frozen=True)
class Case:
    """One golden case.

    Attributes:
      name: of its folder under tests/goldens/checkpoints.
    """

    name: str

    @property
    def folder(self) -> Path:
        """The checkpoint in its original layout, with `golden.npz` and `texts.json` beside its files."""
        return CHECKPOINTS / self.name

    @cached_property
    def about(self) -> dict[str, Any]:
        """What `texts.json` says: layout, family, dtype, texts, versions, and more by layout."""
        return json.loads((self.folder / "texts.json").read_text(encoding="utf-8"))

    @property
    def layout(self) -> str:
        """One of `LAYOUTS`."""
        return self.about["layout"]

    @property
    def family(self) -> str:
        """`model_type` of the encoder's config."""
        return self.about["family"]

    @property
    def dtype(self) -> str:
        """Of the stored weights: "float32", "bfloat16" or "float16"; the goldens are float32 all the same."""
        return self.about["dtype"]

    @cached_property
    def golden(self) -> dict[str, np.ndarray]:
        """The arrays of `golden.npz`."""
        with np.load(self.folder / "golden.npz", allow_pickle=False) as arrays:
            return dict(arrays)


def cases(*layouts: str, family: str | None = None) -> list[Case]:
    """All cases in order of their names, or those of the given layouts and family; AssertionError if none."""
    assert set(layouts) <= set(LAYOUTS), layouts
    found = [Case(path.parent.name) for path in sorted(CHECKPOINTS.glob("*/texts.json"))]
    chosen = [
        case for case in found if (not layouts or case.layout in layouts) and (family is None or case.family == family)
    ]
    assert chosen, f"no golden case of {layouts or 'any layout'} under {CHECKPOINTS}"
    return chosen


def names(chosen: Sequence[Case]) -> list[str]:
    """Ids for pytest.mark.parametrize."""
    return [case.name for case in chosen]
