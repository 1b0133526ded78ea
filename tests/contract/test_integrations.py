"""One list of scenarios over every trainer."""

import pytest

from epochal import Loop, attach
from epochal.testing import check_integration


def train_loop(tmp_path):
    import torch

    def train(callbacks, epochs):
        torch.manual_seed(0)
        net = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with Loop(model=net, optimizer=optimizer, callbacks=callbacks, dir=tmp_path) as run:
            for _ in run.epochs(epochs):
                for x in run.batches([torch.ones(2)] * 3):
                    loss = net(x).square().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    run.log({"train/loss": loss})
                with run.validation():
                    run.log({"val/loss": net(torch.ones(2)).square().mean()})
        return run

    return train


def test_the_plain_loop_keeps_the_contract(tmp_path):
    traces = check_integration(train_loop(tmp_path))
    assert len(traces) == 9


@pytest.fixture
def train_yolo(tmp_path, tiny_digits, offline_ultralytics):
    from ultralytics import YOLO

    def train(callbacks, epochs):
        model = YOLO("yolo26n.yaml")
        run = attach(model, *callbacks)
        model.train(
            data=str(tiny_digits), epochs=epochs, imgsz=32, batch=4, nbs=4, workers=0, device="cpu", plots=False, verbose=False,
            project=str(tmp_path), name="yolo", seed=0, optimizer="SGD", warmup_epochs=0, amp=False,
        )  # fmt: skip
        return run

    return train


@pytest.mark.timeout(280)
def test_ultralytics_keeps_the_contract(train_yolo):
    traces = check_integration(train_yolo)
    assert "on_exception" in traces["ctrl_c"]
