"""docs/models.md names what there is."""

from pathlib import Path

from jaxret.runtime.layouts import LAYOUTS
from tests.parity.cases import cases

PAGE = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")


def test_every_layout_and_every_case_is_named():
    missing = [name for name in (*LAYOUTS, *(case.name for case in cases())) if f"`{name}`" not in PAGE]
    assert not missing
