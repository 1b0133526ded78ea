"""The benchmark of pruning, small: networks learn side by side, and searches over their curves save epochs."""

import importlib.util
import sys

import numpy as np
import pytest

from tools.house import ROOT

pytest.importorskip("optuna")
pytest.importorskip("sklearn")


@pytest.fixture
def pruning(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("pruning", ROOT / "benchmarks" / "pruning.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pruning", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def _one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small products on two busy cores are slower by far on two threads
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_one_thread")
def test_pruning_saves_most_epochs_and_finds_the_same_best(pruning):
    size = pruning.Size(configurations=40, epochs=10, trials=30, repetitions=4)
    curves = pruning.accuracies(size)
    assert curves.shape == (40, 10)
    assert curves.max() > 0.9
    found = pruning.repeat(curves, size, pruning.PRUNERS[pruning.MAIN])
    assert found.epochs < 0.5
    assert found.same_best >= 3


def test_without_pruning_all_epochs_are_used_and_the_best_is_found(pruning):
    import optuna

    size = pruning.Size(configurations=6, epochs=3, trials=4, repetitions=2)
    found = pruning.repeat(np.random.default_rng(0).random((6, 3)), size, optuna.pruners.NopPruner)
    assert found == (1.0, 2, 2)


def test_the_page_holds_a_table_that_keeps_the_promise(pruning):
    page = (ROOT / pruning.PAGE).read_text()
    table = page.partition("<!-- pruning: begin -->")[2].partition("<!-- pruning: end -->")[0]
    (row,) = [line for line in table.splitlines() if line.startswith(f"| `{pruning.MAIN}` |")]
    _, _, epochs, best, _ = (cell.strip() for cell in row.split("|"))
    same, repetitions = map(int, best.split(" of "))
    assert float(epochs.removesuffix(" %")) <= 100 * pruning.LIMIT_EPOCHS
    assert same >= pruning.LIMIT_BEST * repetitions
