"""The command run in this process, as a user would type it."""

import shutil
import sys
from pathlib import Path

import gin
import pytest

from jaxret.cli.main import main


@pytest.fixture
def jaxret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """`jaxret("encode", "--model", ...) -> (exit code, standard output, standard error)`."""

    def run(*arguments: object) -> tuple[int, str, str]:
        gin.clear_config()
        monkeypatch.setattr(sys, "argv", ["jaxret", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    yield run
    gin.clear_config()


@pytest.fixture(scope="session")
def gin_file(tmp_path_factory: pytest.TempPathFactory, root: Path, beir_of_animals: Path, tokenizer) -> Path:
    """The demo's configuration, shrunk, on the folder of animals."""
    folder = tmp_path_factory.mktemp("gin")
    tokenizer.save(folder / "vocabulary.model")
    file = folder / "tiny.gin"
    file.write_text(
        f"""include "{root / "configs/demo/japanese.gin"}"
train.workdir = "{folder / "model"}"
train.vocabulary = "{folder / "vocabulary.model"}"
train.steps = 2
train.global_batch_size = 8
Source.folder = "{beir_of_animals}"
TextConfig.passage_max_len = 24
EncoderConfig.width = 16
EncoderConfig.num_layers = 1
EncoderConfig.num_heads = 2
EncoderConfig.mlp_width = 16
"""
    )
    return file


@pytest.fixture(scope="session")
def trained(gin_file: Path) -> Path:
    """The workdir of two steps."""
    from jaxret.cli.train import parse_gin
    from jaxret.train import loop

    gin.clear_config()
    parse_gin([str(gin_file)], [])
    workdir = gin.get_configurable(loop.train)()
    gin.clear_config()
    return workdir


@pytest.fixture(scope="session")
def searched(trained: Path, beir_of_animals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the trained model finds: `index`, and `runs/<system>.trec` with every document."""
    from jaxret.cli.evaluate import evaluate
    from jaxret.cli.index import index

    folder = tmp_path_factory.mktemp("searched")
    index(trained, beir_of_animals, folder / "index")
    systems, store = "bm25,dense,multi_vector", folder / "index/vectors"
    evaluate(beir_of_animals, folder, "train", systems, trained, vectors=str(store), k=32)
    return folder


@pytest.fixture
def animals(beir_of_animals: Path, tmp_path: Path) -> Path:
    """A copy of the folder of animals that a test may spoil."""
    return Path(shutil.copytree(beir_of_animals, tmp_path / "animals"))
