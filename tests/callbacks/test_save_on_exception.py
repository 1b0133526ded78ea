"""A training that fails leaves a checkpoint that says why."""

import copy
import pickle

import pytest

import epochal
from epochal import Callback, Checkpoint, Loop, SaveOnException, attach
from epochal.core.errors import ArgumentError
from epochal.testing import simulate

torch = pytest.importorskip("torch")


def train(run_dir, *callbacks, error=None, at=(1, 1), epochs=3, state=None, **options):
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 1)
    optimizer = torch.optim.Adam(net.parameters())
    loop = Loop(
        model=net, optimizer=optimizer, callbacks=callbacks, dir=run_dir, name="r", state=state or {}, **options
    )
    try:
        with loop as run:
            for epoch in run.epochs(epochs):
                for batch, x in enumerate(run.batches(torch.randn(3, 8, 4))):
                    optimizer.zero_grad()
                    net(x).square().mean().backward()
                    optimizer.step()
                    if error is not None and (epoch, batch) == at:
                        raise error
    except BaseException as raised:
        if raised is not error:
            raise
    return net, loop.run


def test_the_checkpoint_holds_the_state_and_the_reason(run_dir):
    net, run = train(run_dir, SaveOnException(), error=ValueError("a bad batch\nof many lines"))
    saved = epochal.checkpoint(run, "last")
    about = saved.manifest
    assert about.reason == "ValueError: a bad batch"
    assert (about.epoch, about.batch, about.step, about.resume_point) == (1, 1, 5, False)
    assert about.asked_by == ("SaveOnException",)
    assert not about.pinned
    again = torch.nn.Linear(4, 1)
    saved.load_into(again)
    assert torch.equal(again.weight, net.weight)
    assert saved.load("optimizer")


def test_a_resume_goes_on_from_the_newest_point_between_epochs(run_dir):
    train(run_dir, Checkpoint(), SaveOnException(), error=ValueError("x"))
    _, run = train(run_dir, Checkpoint(), SaveOnException(), resume=True)
    assert (run.end_reason, len(run.history)) == ("completed", 3)


def test_retention_counts_them_apart_from_other_checkpoints(run_dir):
    for number in range(3):
        policies = Checkpoint(keep_last=2), SaveOnException()
        _, run = train(run_dir, *policies, error=ValueError("x"), at=(number + 1, 0), epochs=9, resume=number > 0)
    reasons = [one.manifest.reason for one in run.checkpoints]
    assert reasons.count("ValueError: x") == 1
    assert len(reasons) == 3


@pytest.mark.parametrize(
    ("callback", "error", "saves"),
    [
        (SaveOnException(), KeyboardInterrupt(), True),
        (SaveOnException(), SystemExit(1), False),
        (SaveOnException(Exception), KeyboardInterrupt(), False),
        (SaveOnException((ValueError, KeyError)), KeyError("a"), True),
        (SaveOnException((ValueError, KeyError)), ZeroDivisionError(), False),
    ],
)
def test_only_the_errors_named_are_saved(run_dir, callback, error, saves):
    _, run = train(run_dir, callback, error=error)
    assert len(run.checkpoints) == saves
    if saves:
        assert run.checkpoints[0].manifest.reason.startswith(type(error).__name__)


class SecondCtrlC:
    """A state whose capture is interrupted."""

    def state_dict(self):
        raise KeyboardInterrupt

    def load_state_dict(self, state): ...


def test_a_second_ctrl_c_while_it_is_saved_gives_it_up(run_dir):
    _, run = train(run_dir, SaveOnException(), error=KeyboardInterrupt(), state={"slow": SecondCtrlC()})
    assert run.end_reason == "interrupted"
    assert len(run.checkpoints) == 0


def test_a_training_that_never_began_has_nothing_to_save(run_dir):
    class Fails(Callback):
        def on_train_start(self, run):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(run_dir, Fails(), SaveOnException(), epochs=1)
    again = SaveOnException()
    simulate([again], [{}])
    assert not again.began


def test_a_training_that_ends_well_saves_nothing(run_dir):
    _, run = train(run_dir, SaveOnException())
    assert len(run.checkpoints) == 0


def test_it_can_be_copied():
    one = SaveOnException(KeyError, keep_last=3)
    for copied in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert (copied.errors, copied.keep_last) == ((KeyError,), 3)


@pytest.mark.parametrize("options", [{"errors": "all"}, {"errors": (1,)}, {"errors": int}, {"keep_last": 0}])
def test_bad_arguments_are_refused_at_construction(options):
    with pytest.raises(ArgumentError, match="SaveOnException"):
        SaveOnException(**options)


@pytest.mark.parametrize("task", [pytest.param("", marks=pytest.mark.slow), "-seg"])
def test_yolo_leaves_one_in_the_middle_of_an_epoch(yolo, quick, task):
    model, live = yolo(task), {}

    def fail(run):
        if run.epoch == 1:
            live.update({name: one.clone() for name, one in run.model.state_dict().items()})
            raise ValueError("a bad batch")

    run = attach(model, SaveOnException())
    run.add_callback("on_train_batch_end", fail)
    with pytest.raises(ValueError, match="a bad batch"):
        model.train(**quick())
    saved = epochal.checkpoint(run, "last")
    assert (saved.manifest.reason, saved.manifest.epoch, saved.manifest.batch) == ("ValueError: a bad batch", 1, 0)
    assert all(torch.equal(one, live[name]) for name, one in saved.load("live").items())
    saved.load_into(model.trainer.ema.ema)
