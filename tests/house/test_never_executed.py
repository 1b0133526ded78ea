"""What is read is never executed: no module calls what would unpickle, evaluate or run it."""

import ast

from tools.house import modules

LOADERS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch"}
CALLS = {"load", "loads", "Unpickler", "open"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
OWN_DUMPS = "epochal.testing."  # unpickles what it pickled the line before


def dangerous(tree):
    """Yield the line and the text of each call that could run what it is given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in LOADERS:
            yield from (
                (node.lineno, f"from {node.module} import {one.name}") for one in node.names if one.name in CALLS
            )
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in BUILTINS:
            yield node.lineno, function.id
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            name = f"{function.value.id}.{function.attr}"
            if function.value.id in LOADERS and function.attr in CALLS:
                yield node.lineno, name
        if any(word.arg == "allow_pickle" for word in node.keywords):
            yield node.lineno, "allow_pickle="


def test_the_search_finds_what_it_looks_for():
    source = "import pickle, torch\nfrom pickle import loads\npickle.load(f)\ntorch.load(f)\neval('1')\nload(f, allow_pickle=True)"
    assert [line for line, _ in dangerous(ast.parse(source))] == [2, 3, 4, 5, 6]


def test_no_module_can_execute_what_it_reads():
    found = [
        f"{name}:{line}: {call}"
        for name, module in modules().items()
        if not name.startswith(OWN_DUMPS)
        for line, call in dangerous(module.tree)
    ]
    assert found == []
