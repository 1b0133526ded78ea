"""What the house looks like from outside: who imports whom, how long things are, what has no docstring.

`python tools/house.py` prints the lines of every folder. The rules themselves are tests: tests/house.
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
# In core; everything else there is floor 0.
FLOOR_ONE = frozenset({"callback", "debug", "dispatch", "engine", "lifetime", "roster", "run", "steering"})
FLOORS = {
    "tested": 0,
    "conditions": 2,
    "data": 2,
    "checkpointing": 2,
    "hooks": 2,
    "runs": 2,
    "distributed": 2,
    "callbacks": 3,
    "loggers": 3,
    "integrations": 4,
    "tune": 4,
    "dashboard": 4,
}
ROOF = 5

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, its text and what stands in it."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        """The whole file."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text)

    @property
    def floor(self) -> int:
        """The floor it stands on: 0 to 4, or 5 for the roof."""
        parts = self.name.split(".")
        if len(parts) > 1 and parts[1] == "core":
            return int(len(parts) > 2 and parts[2] in FLOOR_ONE)
        return FLOORS.get(parts[1], ROOF) if len(parts) > 1 else ROOF

    @cached_property
    def code_lines(self) -> frozenset[int]:
        """The numbers of the lines that are neither blank, comment nor docstring."""
        numbers: set[int] = set()
        quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in quiet:
                numbers.update(range(token.start[0], token.end[0] + 1))
        return frozenset(numbers.difference(*(range(a, b + 1) for a, b in _docstrings(self.tree))))

    def functions(self) -> Iterator[tuple[str, int]]:
        """Yield each function's name with its number of code lines, signature included."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                assert node.end_lineno is not None
                yield node.name, len(self.code_lines.intersection(range(node.lineno, node.end_lineno + 1)))

    def imports(self) -> Iterator[str]:
        """Yield the dotted names it imports, wherever in the file, except for type checking only."""
        for node in _walk_at_runtime(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules() -> dict[str, Module]:
    """Return every module of the package by its dotted name."""
    found: dict[str, Module] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = Module(name, path)
    return found


def graph(known: dict[str, Module]) -> dict[str, set[str]]:
    """Return for each module those of our own that it imports."""
    return {name: set(_own_imports(module, known)) - {name} for name, module in known.items()}


def undocumented(known: dict[str, Module]) -> Iterator[str]:
    """Yield every public module, class, function and method without a docstring, unless a base class tells it."""
    classes = {
        node.name: node for module in known.values() for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)
    }
    for module in known.values():
        if not ast.get_docstring(module.tree) and module.code_lines:
            yield module.name
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
                yield from (f"{module.name}.{name}" for name in _undocumented_in(node, classes))


def _undocumented_in(node: ast.ClassDef | Function, classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    if not ast.get_docstring(node):
        yield node.name
    if not isinstance(node, ast.ClassDef):
        return
    inherited = _inherited(node, classes)
    for method in _methods(node):
        told = ast.get_docstring(method) or method.name in inherited or method.name.startswith("_")
        if not told and not {"setter", "override", "overload"} & _decorators(method):
            yield f"{node.name}.{method.name}"


def _methods(node: ast.ClassDef) -> list[Function]:
    return [part for part in node.body if isinstance(part, Function)]


def _decorators(method: Function) -> set[str]:
    return {ast.unparse(decorator).rpartition(".")[2] for decorator in method.decorator_list}


def _inherited(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> set[str]:
    """Return the method names that base classes in the package have."""
    names: set[str] = set()
    for base in node.bases:
        parent = classes.get(ast.unparse(base).partition("[")[0].rpartition(".")[2])
        if parent is not None and parent is not node:
            names |= {method.name for method in _methods(parent)} | _inherited(parent, classes)
    return names


def _own_imports(module: Module, known: dict[str, Module]) -> Iterator[str]:
    for name in module.imports():
        if name in known:
            yield name
        elif name.rpartition(".")[0] in known:
            yield name.rpartition(".")[0]


def _walk_at_runtime(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from _walk_at_runtime(other)
        else:
            yield node
            yield from _walk_at_runtime(node)


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node) is not None:
            first = node.body[0]
            assert first.end_lineno is not None
            yield first.lineno, first.end_lineno


def main() -> None:
    """Print lines and code lines per folder."""
    lines, code = Counter[str](), Counter[str]()
    for module in modules().values():
        folder = str(module.path.parent.relative_to(SOURCE))
        lines[folder] += len(module.text.splitlines())
        code[folder] += len(module.code_lines)
    for folder in sorted(lines):
        print(f"{folder:<32} {lines[folder]:>6} lines {code[folder]:>6} of code")
    print(f"{'all':<32} {lines.total():>6} lines {code.total():>6} of code")


if __name__ == "__main__":
    sys.exit(main())
