"""Bad input: every message says what happened, with which value, and what to do."""

import contextlib
import math

import pytest
import torch

from epochal import (
    Best,
    Callback,
    Checkpoint,
    Diverged,
    EarlyStopping,
    Elapsed,
    Every,
    Loop,
    NonFinite,
    Plateau,
    ReduceLROnPlateau,
    Stop,
    Target,
    attach,
    checkpoint,
)  # fmt: skip
from epochal.core.errors import AttachError, CheckpointError, EpochalError
from epochal.testing import simulate

LOSSES = [{"val/loss": 1.0, "train/loss": 2.0}] * 3


def said(bad):
    """Return the message of the error on purpose that a call ends in."""
    with pytest.raises(EpochalError) as caught:
        bad()
    return str(caught.value)


def net(width=3):
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1))


def loop(path, model=None, **options):
    model = model or net()
    return Loop(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), dir=path, name="run", **options)


def saved_run(path, model=None):
    with loop(path, model) as run:
        for _ in run.epochs(1):
            pass
        run.save("x")
    return run


# -- events -----------------------------------------------------------------------------------------------------------


def test_an_unknown_event(tmp_path):
    with loop(tmp_path) as run:
        assert said(lambda: run.add_callback("on_train_epoch_edn", print)) == (
            "there is no event 'on_train_epoch_edn'; did you mean 'on_train_epoch_end'?"
            ' (`epochal events` lists all; run.declare("on_...") adds one of your own)'
        )


def test_a_wrong_signature(tmp_path):
    def needs_two(trainer, loss): ...

    with loop(tmp_path) as run:
        message = said(lambda: run.add_callback("on_train_end", needs_two))
    assert message.startswith("on_train_end calls ")
    assert "needs_two with one argument, the run, but " in message
    assert "(trainer, loss) does not take that: missing a required argument: 'loss'" in message


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_an_unknown_metric():
    class Reads(Callback):
        def on_fit_epoch_end(self, run):
            run.metrics["val/los"]

    assert said(lambda: simulate([Reads()], LOSSES)) == (
        "no metric 'val/los' was measured so far; did you mean 'val/loss'? Logged: val/loss, train/loss, fitness"
    )


@pytest.mark.parametrize(
    ("policy", "metric"),
    [
        (lambda: EarlyStopping("val/accuracy", patience=3), "val/accuracy"),
        (lambda: ReduceLROnPlateau("val/accuracy", factor=0.5, patience=3), "val/accuracy"),
        (lambda: Checkpoint(when=Best("val/accuracy")), "val/accuracy"),
        (lambda: Stop(when=NonFinite("train/los") | Target("val/accuracy", 0.9)), "train/los"),
    ],
)
def test_a_metric_never_logged_when_a_policy_needs_it(policy, metric):
    message = said(lambda: simulate([policy()], LOSSES))
    assert message.startswith(f"no metric '{metric}' was measured so far")
    assert "Logged: " in message
    assert (
        "needs it: log it, or if it comes only from a later epoch on, write a Stop or Checkpoint whose condition has .after(epochs=n)"
        in message
    )


# -- arguments of policies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [0, -1, 2.5, None, "3", True, math.nan])
def test_patience_below_one_or_no_whole_number(patience):
    expected = f"patience must be a whole number of at least 1, not {patience!r}"
    assert expected in said(lambda: EarlyStopping("val/loss", patience=patience))
    assert expected in said(lambda: Plateau("val/loss", patience=patience))
    assert expected in said(lambda: ReduceLROnPlateau("val/loss", factor=0.5, patience=patience))


@pytest.mark.parametrize("min_delta", [-0.1, math.inf, math.nan, "0.1", None])
def test_a_negative_min_delta(min_delta):
    for bad in (
        lambda: EarlyStopping("val/loss", patience=1, min_delta=min_delta),
        lambda: Best("val/loss", min_delta=min_delta),
    ):
        message = said(bad)
        assert "min_delta must be a " in message
        assert f"not {min_delta!r}" in message


@pytest.mark.parametrize(
    "make",
    [
        lambda mode: EarlyStopping("val/foo", patience=1, mode=mode),
        lambda mode: Best("val/foo", mode=mode),
        lambda mode: Target("val/foo", 1.0, mode=mode),
        lambda mode: Diverged("val/foo", 1.0, mode=mode),
        lambda mode: ReduceLROnPlateau("val/foo", factor=0.5, patience=1, mode=mode),
        lambda mode: Checkpoint(metric="val/foo", mode=mode),
    ],
)
def test_a_mode_that_cannot_be_inferred_or_is_none(make):
    message = said(lambda: make(None))
    assert "'val/foo'" in message
    assert 'mode="min"' in message
    assert 'mode="max"' in message
    wrong = said(lambda: make("lower"))
    assert "'lower'" in wrong
    assert '"min"' in wrong
    assert '"max"' in wrong


@pytest.mark.parametrize("value", [math.nan, None, "0.9", True])
def test_nan_as_target(value):
    assert said(lambda: Target("val/loss", value)) == f"Target: value must be a number, not {value!r}"
    assert said(lambda: Diverged("val/loss", value)) == f"Diverged: threshold must be a number, not {value!r}"


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (lambda: Every(), "exactly one"),
        (lambda: Every(steps=1, epochs=1), "exactly one"),
        (lambda: Every(epochs=0), "not 0"),
        (lambda: Elapsed(), "Elapsed needs a time above 0: pass hours=, minutes= or seconds=, such as hours=8"),
        (lambda: Elapsed(hours=-1), "not -1"),
        (lambda: Stop(when="val/loss"), "when must be a condition, such as Plateau(...), not 'val/loss'"),
        (lambda: Stop(when=Every), "when is the class Every; pass an object, Every(...)"),
        (lambda: Checkpoint(keep_last=-2), "keep_last must be an int >= 0, or -1 for all, not -2"),
        (lambda: Plateau("", patience=1), "must be the name of a metric"),
        (lambda: Plateau("val/loss", patience=1).after(epochs=0), "not 0"),
        (lambda: ReduceLROnPlateau("val/loss", factor=2.0, patience=1), "factor"),
    ],
)
def test_further_arguments_that_cannot_work(bad, expected):
    assert expected in said(bad)


def test_or_and_not_instead_of_their_signs():
    with pytest.raises(TypeError, match=r"combine conditions with \| & ~ instead of or, and, not"):
        Stop(when=Every(epochs=1) or NonFinite("train/loss"))


# -- names and lifetimes ----------------------------------------------------------------------------------------------


def test_two_callbacks_given_one_name():
    assert said(
        lambda: simulate([Checkpoint(name="mine"), EarlyStopping("val/loss", patience=1, name="mine")], LOSSES)
    ) == ("two callbacks are named 'mine'; give each its own name, states are saved under it")


def test_one_callback_in_two_overlapping_trainings(tmp_path):
    stop = EarlyStopping("val/loss", patience=2)
    with loop(tmp_path, callbacks=[stop]):
        message = said(lambda: loop(tmp_path, callbacks=[stop]).__enter__())
    assert message == (
        "EarlyStopping(val/loss) serves another training that is still running; give each training its own object"
    )


def test_what_cannot_be_attached():
    for thing, cure in [
        (net(), "a plain torch module is trained by your own loop: Loop(model=..., optimizer=..., callbacks=[...])"),
        (Checkpoint, "that is the class Checkpoint; attach an object, Checkpoint(...)"),
        (5, "int cannot be attached. Supported: "),
    ]:
        assert cure in said(lambda thing=thing: attach(thing))


# -- checkpoints ------------------------------------------------------------------------------------------------------


def test_an_unwritable_directory(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with loop(tmp_path / "file") as run:
        for _ in run.epochs(1):
            pass
        run.save("x")
    assert run.end_reason == "completed"
    assert f"the run's folder {tmp_path / 'file' / 'run'} cannot be written: " in caplog.text
    assert "choose another with dir=, or free the way" in caplog.text
    assert run.past[-1].checkpoint_errors == 1


def test_a_corrupt_checkpoint(tmp_path):
    run = saved_run(tmp_path)
    folder = run.checkpoints.last.path
    for file in folder.iterdir():
        if file.suffix not in (".json", "") and file.stat().st_size:
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 0xFF
            file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError) as caught:
        checkpoint(folder).load_into(net())
    assert str(folder.name) in str(caught.value)


def test_a_checkpoint_of_another_model(tmp_path):
    run = saved_run(tmp_path)
    other = net(5)
    before = {name: weight.clone() for name, weight in other.state_dict().items()}
    for bad in (
        lambda: run.checkpoints.last.load_into(other),
        lambda: loop(tmp_path, other, resume=True).__enter__(),
    ):
        message = said(bad)
        assert "0.weight: saved (3, 2), model (5, 2)" in message
        assert "1.weight: saved (1, 3), model (1, 5)" in message
    assert all(torch.equal(weight, before[name]) for name, weight in other.state_dict().items())


def test_a_checkpoint_of_another_optimizer_or_of_other_objects(tmp_path):
    saved_run(tmp_path)
    model = net()
    adam = Loop(model=model, optimizer=torch.optim.Adam(model.parameters()), dir=tmp_path, name="run", resume=True)
    message = said(adam.__enter__)
    assert "SGD" in message
    assert "Adam" in message
    scheduled = loop(tmp_path, resume=True, scheduler=torch.optim.lr_scheduler.LinearLR(adam.state.optimizers[0]))
    assert "scheduler: given to Loop, missing in the checkpoint" in said(scheduled.__enter__)


def test_a_resume_from_what_is_not_there(tmp_path):
    assert said(lambda: loop(tmp_path, resume=tmp_path / "no")) == (
        f"resume: there is no run or checkpoint at {tmp_path / 'no'}"
    )
    (tmp_path / "empty").mkdir()
    assert said(lambda: loop(tmp_path, resume=tmp_path / "empty")) == (
        f"resume: {tmp_path / 'empty'} holds no checkpoint to go on from"
    )


# -- the loop ---------------------------------------------------------------------------------------------------------


def test_a_loop_used_in_the_wrong_place(tmp_path):
    one = loop(tmp_path)
    with one as run:
        assert "write it inside `for epoch in run.epochs(n):`" in said(lambda: next(run.batches([1])))
    assert said(one.__enter__) == "a Loop is for one training; make another Loop for the next"
    with contextlib.suppress(AttachError):
        assert "works inside `with Loop(...) as run:` only" in said(lambda: next(run.epochs(3)))
