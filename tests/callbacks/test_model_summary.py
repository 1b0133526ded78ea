"""torchinfo's table, and a training that is the same bit for bit."""

import copy
import logging
import pickle

import pytest

import epochal.callbacks.model_summary
from epochal import Loop, ModelSummary, attach
from epochal.core.errors import MissingExtra
from epochal.testing import simulate

torch = pytest.importorskip("torch")
torchinfo = pytest.importorskip("torchinfo")


def parts():
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 1)
    net = torch.nn.Sequential(*layers)
    net[1].eval()  # layers of different modes, as in fine-tuning
    return net, torch.optim.SGD(net.parameters(), lr=0.1)


def train(*callbacks, **options):
    net, optimizer = parts()
    with Loop(model=net, optimizer=optimizer, callbacks=callbacks, **options) as run:
        for _ in run.epochs(2):
            for _ in run.batches(range(3)):
                optimizer.zero_grad()
                net(torch.randn(8, 4)).square().mean().backward()
                optimizer.step()
    return net, run


def test_the_table_is_torchinfos(run_dir, caplog):
    caplog.set_level(logging.INFO, "epochal")
    summary = ModelSummary(depth=2)
    net, run = train(summary, dir=run_dir)
    assert summary.text == str(torchinfo.summary(net, depth=2, verbose=0))
    assert (run.dir / "model.txt").read_text() == summary.text + "\n"
    assert f"Total params: {sum(one.numel() for one in net.parameters())}" in summary.text
    assert f"ModelSummary:\n{summary.text}" in caplog.text


def test_a_forward_pass_shows_shapes():
    summary = ModelSummary(input_size=(8, 4))
    train(summary)
    assert "[8, 16]" in summary.text
    from_data = ModelSummary(input_data=torch.zeros(5, 4), col_names=("input_size", "output_size"))
    train(from_data)
    assert "[5, 16]" in from_data.text


@pytest.mark.parametrize("options", [{}, {"input_size": (8, 4)}, {"input_data": torch.zeros(2, 4), "mode": "train"}])
def test_the_training_is_the_same_bit_for_bit(options):
    bare, _ = train()
    watched, _ = train(ModelSummary(**options))
    for name, tensor in bare.state_dict().items():
        assert torch.equal(watched.state_dict()[name], tensor), name
    assert [one.training for one in watched.modules()] == [one.training for one in bare.modules()]
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in watched.modules())
    assert torchinfo.torchinfo._cached_forward_pass == {}


def test_a_forward_pass_that_fails_ends_nothing(caplog):
    _, run = train(ModelSummary(input_size=(8, 5)))
    assert run.end_reason == "completed"
    assert "ModelSummary failed in on_train_start; the training goes on" in caplog.text


def test_what_is_no_model_of_pytorch_is_said(caplog):
    summary = ModelSummary()
    simulate([summary], [{}])
    assert "is no model of PyTorch" in caplog.text
    assert summary.text == ""


def test_copies_and_a_missing_package(monkeypatch):
    for one in (copy.deepcopy(ModelSummary(depth=1)), pickle.loads(pickle.dumps(ModelSummary(depth=1)))):
        train(one)
        assert "Sequential" in one.text
    monkeypatch.setattr(epochal.callbacks.model_summary, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "epochal\[summary\]"'):
        ModelSummary()


@pytest.mark.parametrize("task", [pytest.param("", marks=pytest.mark.slow), "-seg"])
def test_yolo_has_a_table_too(yolo, quick, task):
    weights = []
    for callbacks in ([], [ModelSummary(input_size=(2, 3, 32, 32), depth=2)]):
        model = yolo(task)
        run = attach(model, *callbacks)
        model.train(**quick(epochs=1))
        weights.append(model.model.state_dict())
    assert "Detect" in (run.dir / "model.txt").read_text() or "Segment" in (run.dir / "model.txt").read_text()
    assert "[2, 8, 16, 16]" in callbacks[0].text
    assert all(torch.equal(one, weights[1][name]) for name, one in weights[0].items())
