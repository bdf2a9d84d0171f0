"""Types and shapes checked in every function of the package, as jaxtyping's own hook does, in half the time.

That hook makes new functions wherever a nested function is defined and binds the arguments of every call. Here only
functions with array annotations, whose names of axes must agree, pass through jaxtyping; beartype alone checks the
others. Nested functions without arrays, and annotations of names that are there for mypy only, are left to mypy.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

NAMES = "_typechecks"  # how a checked module calls this one


def install(package: str) -> None:
    """Checks the modules of a package that are imported from now on."""
    sys.meta_path.insert(0, _Finder(package))


def arrays(function):
    """Checks types, shapes and dtypes."""
    from beartype import beartype
    from jaxtyping import jaxtyped

    return jaxtyped(typechecker=beartype)(function)


def types(function):
    """Checks types."""
    from beartype import beartype

    return beartype(function)


class _Finder(MetaPathFinder):
    def __init__(self, package: str):
        self._package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.split(".")[0] != self._package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """Compiled each time, so that no cache holds the checks."""
        tree = ast.parse(self.get_data(self.path), self.path)
        checked = _Decorated(_array_names(tree), _absent_names(tree)).visit(tree)
        return compile(ast.fix_missing_locations(checked), self.path, "exec", dont_inherit=True)


def _array_names(tree: ast.Module) -> set[str]:
    """What a module calls annotations of arrays: jaxtyping's, and its own names for them."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "jaxtyping":
            names |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.Assign) and _mentions(node.value, names):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _absent_names(tree: ast.Module) -> set[str]:
    """What a module imports for mypy only."""
    blocks = [node for node in tree.body if isinstance(node, ast.If) and _mentions(node.test, {"TYPE_CHECKING"})]
    imports = [node for block in blocks for node in ast.walk(block) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def _mentions(node: ast.AST | None, names: set[str]) -> bool:
    return node is not None and any(isinstance(part, ast.Name) and part.id in names for part in ast.walk(node))


class _Decorated(ast.NodeTransformer):
    def __init__(self, arrays: set[str], absent: set[str]):
        self._arrays, self._absent, self._nested = arrays, absent, False

    def visit_Module(self, node: ast.Module) -> ast.Module:
        self.generic_visit(node)
        after = [isinstance(child, ast.ImportFrom) and child.module == "__future__" for child in node.body]
        place = len(after) - after[::-1].index(True) if any(after) else int(ast.get_docstring(node) is not None)
        node.body.insert(place, ast.Import([ast.alias(__name__, NAMES)]))
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        if any(isinstance(child, ast.AnnAssign) and _mentions(child.annotation, self._arrays) for child in node.body):
            node.decorator_list.insert(0, self._decorator("arrays", node))  # after @dataclass
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        nested, self._nested = self._nested, True
        self.generic_visit(node)
        self._nested = nested
        arguments = (argument.annotation for argument in ast.walk(node.args) if isinstance(argument, ast.arg))
        annotations = [annotation for annotation in (node.returns, *arguments) if annotation]
        if any(_mentions(annotation, self._arrays) for annotation in annotations):
            node.decorator_list.append(self._decorator("arrays", node))
        elif annotations and not nested and not any(_mentions(each, self._absent) for each in annotations):
            node.decorator_list.append(self._decorator("types", node))
        return node

    def _decorator(self, name: str, node: ast.AST) -> ast.expr:
        return ast.copy_location(ast.Attribute(ast.Name(NAMES, ast.Load()), name, ast.Load()), node)
