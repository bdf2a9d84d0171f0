import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from jaxret.cli.report import report
from jaxret.errors import InputError
from tests.eval.report_inputs import write_data, write_model, write_results


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    return {
        "results": write_results(folder / "results"),
        "model": write_model(folder / "model"),
        "data": write_data(folder / "data"),
    }


def run(inputs: dict[str, Path], *more: str):
    app = typer.Typer()
    app.command()(report)
    arguments = [part for name, path in inputs.items() for part in (f"--{name}", str(path))]
    return CliRunner().invoke(app, [*arguments, *more])


def test_prints_the_leaderboard_and_writes_the_page(inputs: dict[str, Path]):
    done = run(inputs, "--examples", "1")
    assert done.exit_code == 0, done.output
    assert "| BM25" in done.stdout and "| multi-vector, untrained" in done.stdout
    page = inputs["results"] / "report.html"
    text = page.read_text(encoding="utf-8")
    assert text.count("<article>") == 2 and text.lstrip().startswith("<!doctype html>")
    assert str(page) in done.stdout


def test_dry_run_writes_nothing(inputs: dict[str, Path], tmp_path: Path):
    done = run(inputs, "--output", str(tmp_path / "page.html"), "--dry_run")
    assert done.exit_code == 0 and "would report on 3 systems" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({"results": "data"}, (), r"metrics\.json: no such file.*jaxret evaluate"),
        ({"results": "nowhere"}, (), "nowhere: no such folder"),
        ({"model": "nowhere"}, (), "nowhere: no such folder"),
        ({"data": "nowhere"}, (), "nowhere: no such folder"),
        ({}, ("--split", "dev"), "is of split 'test', not 'dev'"),
        ({}, ("--examples", "-1"), "--examples: -1 is negative"),
        ({}, ("--step", "7"), "no step 7"),
    ],
)
def test_bad_input_names_the_place(
    inputs: dict[str, Path], change: dict[str, str], more: tuple[str, ...], message: str
):
    elsewhere = {name: inputs[value] if value in inputs else Path(value) for name, value in change.items()}
    done = run(inputs | elsewhere, *more)
    assert isinstance(done.exception, InputError)
    with pytest.raises(InputError, match=message):
        raise done.exception


def test_a_missing_run_is_named(tmp_path: Path, inputs: dict[str, Path]):
    results = write_results(tmp_path / "results")
    (results / "runs/bm25.trec").unlink()
    done = run(inputs | {"results": results})
    assert isinstance(done.exception, InputError) and "bm25.trec" in str(done.exception)
    assert not (results / "report.html").exists()


def test_help_is_light(root: Path):
    code = (
        "import sys, typer; from jaxret.cli.report import report; app = typer.Typer(); app.command()(report)\n"
        "try: app(['--help'])\n"
        "finally: assert not {'jax', 'numpy', 'matplotlib', 'jinja2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    for option in ("--results", "--model", "--data", "--split", "--output", "--examples", "--dry_run"):
        assert option in done.stdout
