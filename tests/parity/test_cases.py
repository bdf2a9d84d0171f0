"""The goldens are whole: every layout has a case, every case its checkpoint, its arrays and real numbers."""

import numpy as np
import pytest

from tests.parity.cases import CHECKPOINTS, LAYOUTS, Case, cases, names

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def test_every_layout_has_a_case():
    assert {case.layout for case in cases()} == set(LAYOUTS)


def test_the_goldens_are_small():
    assert sum(path.stat().st_size for path in CHECKPOINTS.parent.rglob("*") if path.is_file()) < 4e6


def test_a_layout_without_cases_is_no_empty_list():
    with pytest.raises(AssertionError, match="no golden case"):
        cases("bge_m3", family="bert")


@pytest.mark.parametrize("case", cases(), ids=names(cases()))
def test_a_case_is_whole(case: Case):
    assert (case.folder / "config.json").is_file()
    assert any((case.folder / name).is_file() for name in WEIGHTS)
    rows = [name for name in case.golden if name.endswith("token_ids")]
    assert rows
    for name in rows:
        mask = case.golden[name.replace("token_ids", "attention_mask")]
        assert mask.shape == case.golden[name].shape
        assert set(np.unique(mask)) <= {0, 1} and mask.any(axis=1).all()
    for name, array in case.golden.items():
        assert array.dtype in (np.float32, np.int32), name
        assert np.isfinite(array).all() and array.any(), name
