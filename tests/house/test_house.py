"""The rules of the house: floors, sizes, docstrings."""

import graphlib
import statistics
import sys

import pytest

from tools.house import ROOF, graph, modules, undocumented

MODULES = modules()
GRAPH = graph(MODULES)


def test_imports_only_go_down():
    upward = [
        f"{name} (floor {MODULES[name].floor}) imports {target} (floor {MODULES[target].floor})"
        for name, targets in GRAPH.items()
        for target in targets
        if MODULES[target].floor > MODULES[name].floor
    ]
    assert upward == []


def test_there_is_no_import_cycle():
    try:
        graphlib.TopologicalSorter(GRAPH).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_floors_0_and_1_import_the_standard_library_only():
    foreign = [
        f"{name} imports {target}"
        for name, module in MODULES.items()
        if module.floor <= 1
        for target in module.imports()
        if target.partition(".")[0] not in sys.stdlib_module_names | {"epochal"}
    ]
    assert foreign == []


def test_files_keep_their_budget():
    lengths = {name: len(module.text.splitlines()) for name, module in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
    assert statistics.median(length for length in lengths.values() if length > 1) <= 150


def test_functions_keep_their_budget():
    lengths = {f"{name}.{function}": n for name, module in MODULES.items() for function, n in module.functions()}
    assert {name: length for name, length in lengths.items() if length > 50} == {}
    longest = sorted(lengths.items(), key=lambda pair: -pair[1])[: len(lengths) // 20 + 1]
    assert statistics.quantiles(lengths.values(), n=20)[-1] <= 25, longest


def test_every_public_name_has_a_docstring():
    assert list(undocumented(MODULES)) == []


def test_every_module_stands_on_a_floor_or_on_the_known_roof():
    roof = {name.split(".")[1] for name, module in MODULES.items() if module.floor == ROOF and "." in name}
    assert roof <= {"__main__", "cli", "commands", "demo", "doctor", "testing", "tested"}
