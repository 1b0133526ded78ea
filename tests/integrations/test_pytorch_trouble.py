"""What must hold when something goes wrong, or is done in an unusual order, in a plain loop."""

import logging

import pytest
import torch

from epochal import Callback, Checkpoint, EarlyStopping, Every, LearningRate, Loop, ReduceLROnPlateau
from epochal.callbacks.schedules import Cosine
from epochal.core.errors import ArgumentError, AttachError, CapabilityError, CheckpointError
from epochal.core.run import Run
from epochal.testing import check_events, simulate


class Do(Callback):
    """Calls a function at one event."""

    def __init__(self, event, fn):
        setattr(self, event, fn)


def make(lr=0.1):
    net = torch.nn.Linear(1, 1)
    return net, torch.optim.SGD(net.parameters(), lr=lr)


def step(net, opt):
    opt.zero_grad()
    net(torch.ones(1)).sum().backward()
    opt.step()


def test_a_skipped_step_does_not_shrink_a_schedule():
    net, opt = make(1.0)
    rates = []
    with Loop(model=net, optimizer=opt, callbacks=[LearningRate(Cosine(), every="step")]) as run:
        for _ in run.epochs(2):
            for batch in run.batches(range(10)):
                if (run.epoch, batch) != (0, 0):
                    rates.append(run.lr["pg0"])
                    step(net, opt)
    expected = [0.5 * (1 + torch.cos(torch.tensor(torch.pi * done / 20)).item()) for done in range(19)]
    assert rates[2:] == pytest.approx(expected[2:], abs=1e-6)


def test_a_step_that_raises_leaves_the_schedules_rate():
    net, opt = make()
    used = []
    with Loop(model=net, optimizer=opt) as run:
        run.add_callback("optimizer_step", lambda run: used.append(opt.param_groups[0]["lr"]))
        for _ in run.epochs(1):
            for batch in run.batches(range(3)):
                if batch == 0:
                    run.scale_lr(0.5)
                handle = opt.register_step_pre_hook(lambda *_: 1 / 0) if batch == 1 else None
                if handle is None:
                    step(net, opt)
                else:
                    with pytest.raises(ZeroDivisionError):
                        step(net, opt)
                    handle.remove()
    assert used == [0.05, 0.05]
    assert opt.param_groups[0]["lr"] == 0.1


def test_requests_after_the_training_are_said_to_be_too_late(caplog):
    net, opt = make()
    with Loop(model=net, optimizer=opt) as run:
        pass
    with caplog.at_level(logging.WARNING, "epochal"):
        for ask in (lambda: run.stop("x"), lambda: run.save("x"), lambda: run.set_lr(5.0), lambda: run.scale_lr(2.0)):
            ask()
    assert caplog.text.count("came while no training runs") == 4
    opt.step()
    assert opt.param_groups[0]["lr"] == 0.1


def test_no_batch_runs_after_a_stop_that_was_taken_in_an_earlier_loader():
    net, opt = make()
    seen = []
    with Loop(model=net, optimizer=opt) as run:
        for _ in run.epochs(2):
            for name in ("a", "b"):
                for batch in run.batches(range(3)):
                    seen.append((name, batch))
                    step(net, opt)
                    run.stop("enough")
    assert seen == [("a", 0)]


def test_hyper_parameters_given_before_a_training_are_that_trainings():
    run = Run(host="test", provides=frozenset())
    run.log_params({"depth": 3})
    from epochal.core import lifetime

    lifetime.begin(run)
    assert run.engine.params == {"depth": 3}
    lifetime.finish(run)
    lifetime.begin(run)
    assert run.engine.params == {}
    lifetime.finish(run)


def test_teardown_comes_though_the_summary_cannot_be_made(monkeypatch):
    def fails(run):
        raise OSError("the disk is gone")

    monkeypatch.setattr("epochal.core.lifetime.summary", fails)
    events = []
    net, opt = make()
    loop = Loop(model=net, optimizer=opt, callbacks=[Do("teardown", lambda run: events.append("teardown"))])
    with pytest.raises(OSError, match="the disk is gone"), loop:
        pass
    assert events == ["teardown"]
    assert not loop.run.engine.active


def fail_in_validation(run):
    with run.validation():
        for _ in run.batches(range(2)):
            run.log({"val/loss": 100.0})
            raise ValueError("x")


def test_a_failed_validation_leaves_nothing_to_the_next():
    net, opt = make()
    with Loop(model=net, optimizer=opt) as run:
        for _ in run.epochs(1):
            step(net, opt)
            with pytest.raises(ValueError, match="x"):
                fail_in_validation(run)
            with run.validation():
                for _ in run.batches(range(2)):
                    run.log({"val/loss": 1.0})
    assert run.history[0]["val/loss"] == 1.0


def test_what_is_logged_after_a_validations_batches_is_its_value():
    net, _ = make()
    with Loop(model=net) as run:
        for _ in run.epochs(1):
            with run.validation():
                for value in run.batches([1.0, 2.0]):
                    run.log({"val/acc": value})
                run.log({"val/acc": 10.0})
    assert run.history[0]["val/acc"] == 10.0


def test_every_begins_anew_with_each_training():
    from epochal.core import lifetime

    seen = []
    run = Run(host="test", provides=frozenset())
    run.add_callback("on_fit_epoch_end", lambda run: seen.append(run.epoch), every=2)
    for _ in range(2):
        lifetime.begin(run)
        run.engine.train_start(3)
        for epoch in range(3):
            run.engine.epoch_start(epoch)
            run.engine.train_epoch_end()
            run.engine.epoch_end()
        run.engine.train_end()
        lifetime.finish(run)
    assert seen == [1, 1]


def test_groups_of_one_name_are_told_apart():
    net = torch.nn.Linear(1, 1)
    groups = [{"params": [net.weight], "lr": 1.0, "name": "w"}, {"params": [net.bias], "lr": 0.1, "name": "w"}]
    with Loop(model=net, optimizer=torch.optim.SGD(groups)) as run:
        assert run.lr == {"w": 1.0, "w#1": 0.1}


def test_a_checkpoint_holds_what_was_there_when_its_moment_came(tmp_path):
    net, opt = make()
    torch.nn.init.constant_(net.weight, 3.0)

    def spoil(run):
        with torch.no_grad():
            net.weight.fill_(7.0)

    with Loop(model=net, optimizer=opt, callbacks=[Checkpoint(), Do("on_model_save", spoil)], dir=tmp_path) as run:
        for _ in run.epochs(1):
            pass
    assert run.checkpoints.last.load("model")["weight"].item() == 3.0


def test_a_part_that_refuses_its_state_leaves_everything_as_it_was(tmp_path):
    def train(enabled, resume):
        torch.manual_seed(int(resume))
        net, opt = make()
        scaler = torch.amp.GradScaler("cpu", enabled=enabled)
        loop = Loop(
            model=net, optimizer=opt, scaler=scaler, callbacks=[Checkpoint()], dir=tmp_path, name="a", resume=resume
        )
        return net, loop

    _, loop = train(False, False)
    with loop as run:
        list(run.epochs(1))
    net, loop = train(True, True)
    before = net.weight.item()
    with pytest.raises(CheckpointError, match="scaler: "):
        loop.__enter__()
    assert net.weight.item() == before


def test_going_on_from_an_older_checkpoint_leaves_the_later_ones_aside(tmp_path):
    def train(losses, resume=False):
        net, opt = make()
        with Loop(
            model=net, optimizer=opt, callbacks=[Checkpoint(keep_last=-1)], dir=tmp_path, name="a", resume=resume
        ) as run:
            for epoch in run.epochs(len(losses)):
                with run.validation():
                    run.log({"val/loss": losses[epoch]})
        return run

    run = train([4.0, 3.0, 1.0])
    first = run.checkpoints[0].path
    again = train([4.0, 3.5], resume=first)
    assert [one.manifest.epoch for one in again.checkpoints] == [0, 1]
    assert again.checkpoints.best().manifest.fitness == again.best_fitness == -3.5
    assert len(list(first.parent.glob(".left-*"))) == 2


def test_mistakes_of_the_first_hour_say_what_to_write():
    net, _ = make()
    with pytest.raises(AttributeError, match=r"write `with Loop\(...\) as run:`, then run.epochs"):
        Loop(model=net).epochs(3)
    with pytest.raises(ArgumentError, match=r"is one callback; give a list, callbacks=\[...\]"):
        Loop(model=net, callbacks=EarlyStopping("val/loss", patience=1))
    with pytest.raises(ArgumentError, match="optimizer is the class SGD; give an object"):
        Loop(model=net, optimizer=torch.optim.SGD)
    with pytest.raises(ArgumentError, match="must map names to things"):
        Loop(model=net, state=[net])
    run = Run(host="test", provides=frozenset())
    with pytest.raises(ArgumentError, match=r'write @run.on\("on_val_end"\)'):

        @run.on
        def on_val_end(run):
            pass

    with pytest.raises(AttachError, match="that is a list; pass its members one by one"):
        run.add([Checkpoint()])
    with (
        pytest.raises(CapabilityError, match="no learning rate to reduce"),
        Loop(model=net, callbacks=[ReduceLROnPlateau("val/loss", patience=1)]) as run,
    ):
        list(run.epochs(1))


def test_an_epoch_without_batches_and_a_misspelt_fitness_are_said_once(caplog):
    net, _ = make()
    used_up = iter([1, 2])
    with caplog.at_level(logging.WARNING, "epochal"), Loop(model=net, fitness="val/los") as run:
        for _ in run.epochs(3):
            for _ in run.batches(used_up):
                pass
            with run.validation():
                run.log({"val/loss": 1.0})
    assert caplog.text.count("has no batch") == 2
    assert caplog.text.count("did you mean 'val/loss'?") == 1


def test_a_stop_in_the_middle_of_a_simulated_epoch_is_no_point_to_resume_from():
    stop = Do("on_train_batch_end", lambda run: run.stop("x"))
    result = simulate([stop, Checkpoint(Every(epochs=1))], [{}] * 3, batches=4)
    check_events(result.events)
    assert [one.manifest.resume_point for one in result.run.checkpoints] == [False]
