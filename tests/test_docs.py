"""The pages name what there is."""

import re
from pathlib import Path

import gin
import pytest

from jaxret.cli.train import parse_gin
from jaxret.errors import InputError
from jaxret.runtime.layouts import LAYOUTS
from tests.parity.cases import cases

ROOT = Path(__file__).parents[1]
MODELS, TRAINING = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("models.md", "training.md"))
BLOCKS = re.findall(r"^```\n(.*?)^```$", TRAINING, re.MULTILINE | re.DOTALL)
SNIPPETS = [block for block in BLOCKS if re.search(r"^[\w./]+ = ", block, re.MULTILINE)]


@pytest.fixture
def parsed(tmp_path):
    """Reads a snippet behind the file that fine-tunes, as the command does."""

    def parse(snippet):
        file = tmp_path / "whole.gin"
        file.write_text((ROOT / "configs" / "finetune" / "contrastive.gin").read_text() + snippet)
        gin.clear_config()
        parse_gin([str(file)], ['train.pretrained = "a model"', 'Source.folder = "a folder"'])

    yield parse
    gin.clear_config()


def test_every_layout_and_every_case_is_named():
    missing = [name for name in (*LAYOUTS, *(case.name for case in cases())) if f"`{name}`" not in MODELS]
    assert not missing


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: re.search(r"^([\w./]+) = ", snippet, re.MULTILINE)[1])
def test_a_snippet_for_training_is_understood(snippet, parsed):
    """And is not where a name or a setting of it is another."""
    parsed(snippet)
    for binding in re.findall(r"^[\w./]+\.\w+ = .*", snippet, re.MULTILINE):
        for wrong in (binding.replace(" = ", "_wrong = "), re.sub(r"(@[\w./]+)", r"\1_wrong", binding)):
            if wrong != binding:
                with pytest.raises(InputError, match="_wrong"):
                    parsed(snippet.replace(binding, wrong))


def test_the_snippets_are_found():
    assert len(SNIPPETS) == 3
