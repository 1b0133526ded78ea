"""The callbacks steer a real training of PyTorch as PyTorch's own means do."""

import pytest

from epochal import EarlyStopping, LearningRate, Loop, Progress, ReduceLROnPlateau
from epochal.callbacks.schedules import Cosine, Linear, OneCycle, Warmup

torch = pytest.importorskip("torch")
schedulers = torch.optim.lr_scheduler
EPOCHS, BATCHES = 4, 5


def parts(lr=0.1):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD([{"params": [model.weight], "lr": lr}, {"params": [model.bias], "lr": lr / 10}], lr=lr)
    data = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(BATCHES)]
    return model, optimizer, data


def step(model, optimizer, x, y):
    loss = torch.nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def trained_by_torch(make, every):
    model, optimizer, data = parts()
    scheduler = make(optimizer)
    for _ in range(EPOCHS):
        for x, y in data:
            step(model, optimizer, x, y)
            if every == "step":
                scheduler.step()
        if every == "epoch":
            scheduler.step()
    return model.state_dict()


def trained_by_us(*callbacks):
    model, optimizer, data = parts()
    with Loop(model=model, optimizer=optimizer, callbacks=callbacks) as run:
        for _ in run.epochs(EPOCHS):
            for x, y in run.batches(data):
                run.log({"train/loss": step(model, optimizer, x, y)})
            with run.validation():
                run.log({"val/loss": 1.0})
    return model.state_dict()


def warm_cosine(optimizer):
    first = schedulers.LinearLR(optimizer, 0.25, total_iters=3)
    return schedulers.SequentialLR(
        optimizer, [first, schedulers.CosineAnnealingLR(optimizer, EPOCHS * BATCHES - 3)], [3]
    )


@pytest.mark.parametrize(
    ("schedule", "every", "make"),
    [
        (Cosine(), "epoch", lambda optimizer: schedulers.CosineAnnealingLR(optimizer, EPOCHS)),
        (Linear(end=0.5), "epoch", lambda optimizer: schedulers.LinearLR(optimizer, 1.0, 0.5, total_iters=EPOCHS)),
        (Warmup(3, then=Cosine()), "step", warm_cosine),
        (warm_cosine, "step", warm_cosine),
        (
            OneCycle(max_lr=0.5),
            "step",
            lambda optimizer: schedulers.OneCycleLR(optimizer, 0.5, total_steps=EPOCHS * BATCHES, cycle_momentum=False),
        ),
        (lambda done: 0.9**done, "step", lambda optimizer: schedulers.LambdaLR(optimizer, lambda done: 0.9**done)),
    ],
    ids=["cosine", "linear", "warmup", "warmup of torch", "one cycle", "function"],
)
def test_a_schedule_trains_the_weights_that_torchs_own_trains(schedule, every, make):
    ours, theirs = trained_by_us(LearningRate(schedule, every=every)), trained_by_torch(make, every)
    for name, tensor in theirs.items():
        assert torch.allclose(ours[name], tensor, rtol=1e-5, atol=1e-7), name


def test_plateau_cuts_train_the_weights_that_torchs_own_cuts_train():
    model, optimizer, data = parts()
    scheduler = schedulers.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=0, threshold=0, eps=0, threshold_mode="abs"
    )
    for _ in range(EPOCHS):
        for x, y in data:
            step(model, optimizer, x, y)
        scheduler.step(1.0)
    ours = trained_by_us(ReduceLROnPlateau("val/loss", factor=0.5, patience=1))
    for name, tensor in model.state_dict().items():
        assert torch.allclose(ours[name], tensor, rtol=1e-6), name


def test_the_best_weights_are_in_the_model_at_the_end():
    model = torch.nn.Linear(1, 1)
    with Loop(model=model, callbacks=[EarlyStopping("val/loss", patience=2, restore_best=True)]) as run:
        for epoch in run.epochs(9):
            torch.nn.init.constant_(model.weight, epoch)
            with run.validation():
                run.log({"val/loss": abs(epoch - 3)})
    assert run.epoch == 5
    assert model.weight.item() == 3


def test_progress_shows_a_loop(capsys):
    trained_by_us(Progress())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("epoch=1/4 step=5 seconds=")
    assert "completed    after 4 epochs, 20 steps" in lines[4]
