"""The training steps of docs/tpu.md: their products counted by hand, against compilers."""

import dataclasses

import jax
import numpy as np
import pytest

from benchmarks.tpu.arithmetic import model_flops, program_flops, texts
from benchmarks.tpu.kernels import walked
from benchmarks.tpu.steps import STEPS, Step
from benchmarks.tpu.table import MADE_OF, fingerprint, keep, known
from jaxret.runtime.compiled.costs import costs
from jaxret.runtime.compiled.hlo import Program
from jaxret.runtime.mesh import device_mesh
from jaxret.train.throughput import training_flops

KINDS = ("dense", "three heads", "distillation", "RetroMAE")
HBM = {"v5e": 15.75, "v5p": 95.0}


@pytest.mark.parametrize("kind", KINDS)
def test_the_products_of_a_program(kind):
    step = Step(kind, "all-minilm-l6-v2", "v5e:4x4", 4, mesh=(1, 1, 1))
    # The kernels are for TPUs alone.
    model = dataclasses.replace(step.model(), attention="plain")
    compiled = step.compiled_on(device_mesh(step.shape, jax.devices()[:1]), model)
    parts = program_flops(step, tpu=False)
    assert costs(Program(compiled.as_text())).flops == pytest.approx(sum(parts.values()), rel=0.005)


def test_what_a_model_must_do():
    dense, heads, groups, rebuilt = (Step(kind, "bert-base-uncased", "v5e:4x4", 2) for kind in KINDS)
    encoder = dense.model().config.encoder
    pairs = {"query": np.ones((2, 128)), "passage": np.ones((2, 1, 256))}
    assert texts(dense) == [(2, 128), (2, 256)] and texts(groups) == [(2, 128), (16, 256)]
    assert model_flops(dense) == training_flops(encoder, pairs)
    assert model_flops(heads) == model_flops(dense) + 6 * 768 * (128 + 1) * 2 * (128 + 256)
    layer = 6 * 12 * 768**2 * 512 + 12 * 768 * 2 * 256**2
    words = 6 * 768 * (768 + 30522) * 2 * (80 + 254)
    assert model_flops(rebuilt) == 12 * layer + layer + words


def test_a_program_does_more_than_the_model_must():
    rebuilt = Step("RetroMAE", "bert-base-uncased", "v5e:4x4", 2)
    # Pieces of 32 places: 96 for the encoder's 80, 256 for the decoder's; each forwards, again, and backwards.
    assert program_flops(rebuilt)["vocabulary"] == 8 * 768 * (768 + 30522) * 2 * (96 + 256)
    few, many = (
        program_flops(Step("three heads", "bert-base-uncased", chips, 2)) for chips in ("v5e:4x4", "v5e:16x16")
    )
    assert many["scores"] == 16 * few["scores"], "every query meets the passages of all chips"
    assert many["encoder"] == few["encoder"]


def test_a_product_waits_for_its_unit():
    bundles = """
// a comment of the compiler's
   0x1   : > { %v1 = vld [vmem:[%s1] sm:$0xff] }
   0x2   : > { %1 = vmatmul.bf16.vlgmr.msra.gmra.mxu0 %v1  ;;  %2 = vmatmul.bf16.gmra.mxu1 %v1 }
   0x3 LB: > { %3 = vmatmul.msk.bf16.gmra.mxu2 %v1 }
   0x4   : > { %4 = vmatmul.bf16.gmra.mxu0 %v1 }
   0x5   : > { %v2 = vpop.f32.mrf.mxu0 }
"""
    assert walked(bundles) == 2 + 16 + 16, "the fourth bundle at 18, its product until 34"
    assert walked(bundles.replace("gmra.mxu0 %v1 }", "gmra.mxu3 %v1 }")) == 4 + 16
    with pytest.raises(ValueError, match="not a product of bfloat16"):
        walked("0x1   :  { %1 = vmatmul.f32.gmra.mxu0 %v1 }")


def test_what_was_found_counts_as_long_as_the_sources_are_the_same(root, tmp_path, monkeypatch):
    assert all((root / part).exists() for part in MADE_OF)
    files = [tmp_path / (part if part.endswith(".py") else f"{part}/deep/module.py") for part in MADE_OF]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x = 1\n")
    place, before = tmp_path / "found.json", fingerprint(tmp_path)
    assert known(place, before) == {}
    keep(place, before, {"hbm": 1})
    (tmp_path / "jaxret" / "cli.py").write_text("x = 1\n")
    assert known(place, fingerprint(tmp_path)) == {"hbm": 1}
    for file in files:
        file.write_text("x = 2\n")
        assert known(place, fingerprint(tmp_path)) == {}
        file.write_text("x = 1\n")
    assert known(place, fingerprint(tmp_path)) == {"hbm": 1}
    monkeypatch.setattr("benchmarks.tpu.table.COMPILERS", ("flax",))
    assert known(place, fingerprint(tmp_path)) == {}


def test_the_table_agrees_with_the_count(root):
    page = (root / "docs" / "tpu.md").read_text()
    _, _, *rows = (line.split("|")[1:-1] for line in page.splitlines() if line.count("|") == 13)
    for step, cells in zip(STEPS, rows, strict=True):
        kind, encoder, chips, each, hbm, products, by_hand, model, *_ = (cell.strip() for cell in cells)
        assert kind.startswith(step.kind) and chips.startswith(step.topology)
        assert (encoder, int(each)) == (step.encoder, step.rows)
        assert 0 < float(hbm) < HBM[step.topology[:3]]
        assert float(by_hand) == round(sum(program_flops(step).values()) / 1e12, 2)
        assert float(products) == pytest.approx(float(by_hand), rel=0.05), step.name
        assert float(model) == round(model_flops(step) / 1e12, 2)
