"""The shape of the house: imports point down, files stay small, the fast parts stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "errors": 0,
    "left_overs": 0,
    "files": 1,
    "ops": 1,
    "nn": 2,
    "data": 2,
    "runtime": 3,
    "train": 4,
    "search": 4,
    "eval": 5,
    "cli": 6,
    "__init__": 7,  # the package itself: from_pretrained
    "__main__": 7,
}
GROUND = {"jax", "numpy", "jaxtyping", "typing", "collections", "functools", "math", "dataclasses", "__future__"}
FILES = sorted((ROOT / "jaxret").rglob("*.py"))


def imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found.append(node.module)
    return found


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path):
    parts = path.relative_to(ROOT / "jaxret").with_suffix("").parts
    here = parts[0]
    for module in imported(path):
        assert module.split(".")[0] not in {"experiments", "tests", "benchmarks"}, f"{path} imports {module}"
        if module.startswith("jaxret."):
            there = room(module)
            assert there == here or FLOORS[there] < FLOORS[here], f"{path} ({here}) imports {module}: not below"
        if module.split(".")[0] == "gin":
            assert here == "cli", f"{path} imports gin: only cli/ knows it"
        if here == "ops":
            assert module.split(".")[0] in GROUND | {"jaxret"}, f"{path} imports {module}: ops are pure"


@pytest.mark.parametrize(
    "path", [p for p in ROOT.rglob("*.py") if not p.relative_to(ROOT).parts[0].startswith((".venv", "build"))], ids=str
)
def test_files_are_small(path: Path):
    lines = path.read_text().count("\n")
    assert lines <= 400, f"{path} has {lines} lines"


def test_median_file_is_small():
    sizes = sorted(p.read_text().count("\n") for p in FILES)
    assert sizes[len(sizes) // 2] < 120


def test_functions_are_short():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and _code_lines(node) > 40
    ]
    assert not long, long


def _code_lines(node: ast.FunctionDef) -> int:
    """Lines of a function, its signature and docstring left out."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


LIGHT = ("jaxret.search.exact", "jaxret.search.encode", "jaxret.runtime.model", "jaxret.train.loop")


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (("jaxret.cli.main",), ["jax", "tensorflow", "seqio", "numpy", "flax"]),
        (LIGHT, ["tensorflow", "tensorflow_datasets", "seqio", "gin"]),
        (("jaxret.eval.metrics",), ["tensorflow", "seqio", "gin", "jax"]),
    ],
)
def test_light_modules_do_not_import_heavy_ones(modules: tuple[str, ...], heavy: list[str]):
    """Those with the same heavy ones in one process: the first that brings one is named."""
    code = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
    assert not {set(heavy)} & {{*sys.modules}}, module
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
