"""`jaxret convert` from and into published layouts."""

import numpy as np
import pytest

import jaxret
from jaxret.cli.convert import convert
from jaxret.errors import InputError
from tests.parity.cases import cases

CASE = next(case for case in cases("sentence_transformers") if case.name == "st6_minilm")


@pytest.mark.parametrize("layout", ["auto", "jaxret"])
def test_the_same_vectors_in_another_layout(tmp_path, layout, capsys):
    output = tmp_path / "model"
    convert(CASE.folder, output, layout)
    assert str(output) in capsys.readouterr().out
    found = jaxret.from_pretrained(output).encode_document(CASE.about["documents"]).dense
    np.testing.assert_allclose(found, CASE.golden["document_dense"], atol=1e-5)


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    convert(CASE.folder, tmp_path / "model", "jaxret", dry_run=True)
    assert "would write" in capsys.readouterr().out
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"layout": "onnx"}, "unknown 'onnx'"), ({"dtype": "int8"}, "unknown 'int8'")],
)
def test_unknown_choices(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        convert(CASE.folder, tmp_path / "model", **settings)
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists already"):
        convert(CASE.folder, tmp_path / "there")
