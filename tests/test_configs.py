"""Every gin file under configs/ parses and takes a step, shrunk."""

import re
from pathlib import Path

import gin
import pytest

from tests.parity.cases import Case

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.gin"))


def whole(file: Path, root: Path) -> str:
    """A gin file with those that it includes."""
    text = file.read_text()
    return text + "".join(whole(root / name, root) for name in re.findall('^include "(.*)"', text, re.MULTILINE))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda p: p.stem)
def test_takes_a_step(file: Path, root, beir_of_animals, groups_of_animals, tokenizer, tmp_path, monkeypatch):
    from jaxret.cli.train import parse_gin
    from jaxret.train import loop

    monkeypatch.chdir(root)
    tokenizer.save(tmp_path / "vocabulary.model")
    gin.clear_config()
    fresh = [
        f'train.vocabulary = "{tmp_path / "vocabulary.model"}"',
        "EncoderConfig.width = 16",
        "EncoderConfig.num_layers = 1",
        "EncoderConfig.num_heads = 2",
        "EncoderConfig.mlp_width = 16",
    ]
    published = [f'train.pretrained = "{Case("st6_minilm").folder}"']
    text = whole(file, root)
    sources = {
        "GroupFile": [f'GroupFile.path = "{groups_of_animals}"', f'GroupFile.folder = "{beir_of_animals}"'],
        "tasks.Source": [f'Source.folder = "{beir_of_animals}"'],
        "@running_text.TextSource": [f'TextSource.path = "{beir_of_animals}"'],
        "ja/running_text.TextSource": [f'ja/TextSource.path = "{beir_of_animals}"'],
    }
    overrides = [
        f'train.workdir = "{tmp_path / "model"}"',
        "train.steps = 1",
        "train.global_batch_size = 8",
        "train.mesh_shape = (-1, 1, 1)",
        *(override for name, found in sources.items() if name in text for override in found),
        *(published if "train.pretrained = " in text else fresh),
    ]
    parse_gin([str(file)], overrides)
    try:
        workdir = gin.get_configurable(loop.train)()
    finally:
        gin.clear_config()
    assert (workdir / "checkpoints" / "1").is_dir()
