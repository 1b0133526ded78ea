"""The Fabric example runs as a user runs it; what Fabric wraps is counted, saved and gone on with."""

import runpy

import pytest

from epochal import checkpoint
from tools.house import ROOT


def test_the_fabric_example_learns_and_goes_on_to_the_bit(capsys, monkeypatch, tmp_path):
    pytest.importorskip("lightning")
    pytest.importorskip("sklearn")
    import torch

    main = runpy.run_path(str(ROOT / "examples" / "fabric_loop.py"))["main"]
    whole = main(epochs=4)
    assert whole.run.best_fitness > 0.8
    assert whole.run.step == 4 * 23  # 1438 images in batches of 64
    assert "after epoch 4, 92 steps" in capsys.readouterr().out

    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    main(epochs=2)
    again = main(epochs=4, resume=True)
    assert (again.run.step, again.run.end_reason) == (92, "completed")
    assert [dict(row) for row in again.run.history] == [dict(row) for row in whole.run.history]
    for name, value in whole.state.model.state_dict().items():
        assert torch.equal(again.state.model.state_dict()[name], value), name
    assert set(checkpoint(again.run, "best").load("model")) == {"0.weight", "0.bias", "3.weight", "3.bias"}
