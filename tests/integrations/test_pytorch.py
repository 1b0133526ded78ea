"""The plain PyTorch loop: events stay paired, weights stay the same, a resumed run is the same run."""

import logging

import pytest
import torch

from epochal import Best, Callback, Checkpoint, Loop, MetricNotFound
from epochal.core.errors import AttachError, CheckpointError
from epochal.testing import RecordEvents, check_events

BATCHES = [torch.full((4, 3), float(i)) for i in range(5)]


def make(seed=0):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
    return net, torch.optim.AdamW(net.parameters(), lr=0.01)


def step(net, opt, x):
    opt.zero_grad()
    loss = (net(x) - x.sum(1, keepdim=True)).square().mean()
    loss.backward()
    opt.step()
    return loss


def train(tmp_path, callbacks=(), epochs=3, body=None, resume=False, seed=0, name="run", validate=True):
    net, opt = make(seed)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 6)
    record = RecordEvents()
    loop = Loop(
        model=net,
        optimizer=opt,
        scheduler=schedule,
        callbacks=[*callbacks, record],
        dir=tmp_path,
        name=name,
        resume=resume,
    )
    try:
        with loop as run:
            for epoch in run.epochs(epochs):
                for x in run.batches(BATCHES):
                    run.log({"train/loss": step(net, opt, x)})
                    if body is not None and body(run, x) == "break":
                        break
                schedule.step()
                if validate:
                    with run.validation():
                        run.log({"val/loss": 1.0 / (epoch + 1)})
    finally:
        train.events = record.events
        train.run = loop.run
        check_events(record.events)
    return net, run, record.events


class Do(Callback):
    """Calls a function at one event."""

    def __init__(self, event, fn):
        setattr(self, event, fn)


def paired(events):
    for start, end in [
        ("on_train_start", "on_train_end"),
        ("on_train_epoch_start", "on_train_epoch_end"),
        ("on_train_batch_start", "on_train_batch_end"),
        ("on_val_start", "on_val_end"),
    ]:
        assert events.count(start) == events.count(end), (start, events)
    return True


def test_a_normal_training_counts_epochs_batches_and_steps(tmp_path):
    _, run, events = train(tmp_path)
    assert (run.epoch, run.batch, run.step, run.end_reason) == (2, 4, 15, "completed")
    assert events.count("optimizer_step") == 15
    assert paired(events)
    assert [row["val/loss"] for row in run.history] == [1.0, 0.5, 1 / 3]
    assert run.fitness == run.best_fitness == -1 / 3


def test_break_keeps_start_and_end_paired(tmp_path):
    _, run, events = train(tmp_path, body=lambda run, _: "break" if run.batch == 1 else None)
    assert paired(events)
    assert run.step == 6


def test_break_out_of_epochs_ends_the_epoch(tmp_path):
    net, opt = make()
    record = RecordEvents()
    with Loop(model=net, optimizer=opt, callbacks=[record], dir=tmp_path) as run:
        for _ in run.epochs(5):
            for x in run.batches(BATCHES):
                step(net, opt, x)
            break
        assert "on_fit_epoch_end" not in record.events
        with run.validation():
            run.log({"val/loss": 1.0})
        assert record.events.index("on_fit_epoch_end") < record.events.index("on_val_start")
    check_events(record.events)
    assert run.metrics["final/loss"] == 1.0
    assert run.fitness is None
    assert len(run.history) == 1


@pytest.mark.parametrize("error", [ValueError("boom"), KeyboardInterrupt()])
def test_an_error_in_the_body_keeps_start_and_end_paired(tmp_path, error):
    def body(run, _):
        if (run.epoch, run.batch) == (1, 2):
            raise error

    with pytest.raises(type(error)):
        train(tmp_path, body=body)
    events = train.events
    assert paired(events)
    assert events[-2:] == ["on_exception", "teardown"]
    assert "on_train_epoch_abort" in events
    assert train.run.end_reason == ("interrupted" if isinstance(error, KeyboardInterrupt) else "exception")
    assert len(train.run.history) == 1


@pytest.mark.parametrize(
    "event", ["on_train_start", "on_train_epoch_start", "on_train_batch_start", "optimizer_step", "on_train_batch_end",
              "on_train_epoch_end", "on_val_start", "on_val_end", "on_fit_epoch_end", "on_train_end"],
)  # fmt: skip
def test_an_error_of_a_callback_propagates_with_a_note_wherever_it_happens(tmp_path, event):
    def fail(run):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as caught:
        train(tmp_path, [Do(event, fail)])
    assert f"raised by Do({event}) in {event}" in caught.value.__notes__
    assert train.events[-1] == "teardown"
    assert train.events.count("teardown") == 1


def test_a_stop_in_a_batch_ends_the_epoch_after_its_validation(tmp_path):
    class StopAt(Callback):
        def on_train_batch_end(self, run):
            if run.step == 7:
                run.stop("enough")

    _, run, events = train(tmp_path, [StopAt()])
    assert run.step == 7
    assert (run.end_reason, run.stop_reason) == ("stopped", "StopAt: enough")
    assert events[-4:] == ["on_val_end", "on_fit_epoch_end", "on_train_end", "teardown"]


def test_stop_requests_are_or_ed(tmp_path):
    one, two = Do("on_fit_epoch_end", lambda run: run.stop("a")), Do("on_fit_epoch_end", lambda run: run.stop("b"))
    one.name, two.name = "one", "two"
    _, run, _ = train(tmp_path, [one, two])
    assert run.stop_reason == "one: a; two: b"
    assert len(run.history) == 1


def test_a_stop_waits_for_the_step_of_a_running_accumulation_group(tmp_path):
    net, opt = make()
    steps = []
    with Loop(model=net, optimizer=opt, dir=tmp_path) as run:
        for _ in run.epochs(1):
            for i, x in enumerate(run.batches(BATCHES * 4)):
                (net(x).mean() / 4).backward()
                if i % 4 == 3:
                    opt.step()
                    opt.zero_grad()
                if i == 9:
                    run.stop("now")
                steps.append(run.step)
    assert len(steps) == 12
    assert run.step == 3


def test_validation_inside_a_batch_ends_that_batch_first(tmp_path):
    net, opt = make()
    record = RecordEvents()
    with Loop(model=net, optimizer=opt, callbacks=[record], dir=tmp_path) as run:
        for _ in run.epochs(1):
            for x in run.batches(BATCHES):
                step(net, opt, x)
                if run.batch == 2:
                    with run.validation():
                        for _ in run.batches(BATCHES[:2]):
                            run.log({"val/loss": float(run.val_batch)})
                    assert run.metrics["val/loss"] == 0.5
            with run.validation():
                run.log({"val/loss": 2.0})
    check_events(record.events)
    start = record.events.index("on_val_start")
    assert record.events[start - 1] == "on_train_batch_end"
    assert record.events.count("on_val_batch_end") == 2
    assert (
        record.events.index("on_train_epoch_end") < len(record.events) - record.events[::-1].index("on_val_start") - 1
    )


def test_passive_callbacks_do_not_change_the_weights(tmp_path):
    bare, opt = make()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 6)
    for _ in range(3):
        for x in BATCHES:
            step(bare, opt, x)
        schedule.step()
    watched, _, _ = train(tmp_path, [RecordEvents(), Do("on_train_batch_end", lambda run: run.metrics["train/loss"])])
    for name, weight in bare.state_dict().items():
        assert torch.equal(weight, watched.state_dict()[name]), name


@pytest.mark.parametrize("fused", [False, True])
def test_skipped_amp_steps_do_not_count(tmp_path, fused):
    net, _ = make()
    opt = torch.optim.AdamW(net.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with Loop(model=net, optimizer=opt, scaler=scaler, dir=tmp_path) as run:
        for _ in run.epochs(1):
            for i, x in enumerate(run.batches(BATCHES)):
                opt.zero_grad()
                scaler.scale(net(x).mean() * (float("inf") if i == 1 else 1.0)).backward()
                scaler.step(opt)
                scaler.update()
    assert run.step == 4


def test_without_an_optimizer_step_counts_batches_and_with_two_the_first_counts(tmp_path):
    net, opt = make()
    with Loop(model=net, dir=tmp_path) as run:
        for _ in run.epochs(2):
            list(run.batches(BATCHES))
    assert run.step == 10
    other = torch.optim.SGD(net.parameters(), lr=0.1)
    record = RecordEvents()
    with Loop(model=net, optimizer=[opt, other], callbacks=[record], dir=tmp_path) as run:
        for _ in run.epochs(1):
            for x in run.batches(BATCHES):
                step(net, opt, x)
                other.step()
        run.set_lr(0.5, "optimizer1/pg0")
        assert run.lr == {"pg0": 0.01, "optimizer1/pg0": 0.5}
    assert run.step == 5
    assert record.events.count("optimizer_step") == 10
    check_events(record.events)


def test_a_compiled_model_trains_and_saves_clean_names(tmp_path):
    net, opt = make()
    compiled = torch.compile(net, backend="eager")
    with Loop(model=compiled, optimizer=opt, dir=tmp_path, name="compiled") as run:
        for _ in run.epochs(1):
            for x in run.batches(BATCHES):
                step(compiled, opt, x)
        run.save("now")
    assert run.step == 5
    assert set(run.checkpoints.last.load("model")) == set(net.state_dict())


def test_a_resumed_run_is_the_same_run_bit_for_bit(tmp_path):
    whole, _, _ = train(tmp_path / "whole", epochs=6)
    save = Do("on_fit_epoch_end", lambda run: run.save("each"))
    train(
        tmp_path,
        [save],
        epochs=6,
        body=lambda run, _: run.stop("enough") if run.epoch == 2 and run.batch == 4 else None,
    )
    assert len(train.run.history) == 3
    again, run, events = train(tmp_path, epochs=6, resume=True, seed=99)
    assert events[0] == "on_resume"
    assert len(run.history) == 6
    assert run.step == 30
    assert run.dir == tmp_path / "run"
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_a_run_stopped_inside_an_epoch_goes_on_where_it_was_cut(tmp_path):
    def body(run, _):
        if (run.epoch, run.batch) == (2, 1):
            run.stop("enough")

    whole, _, _ = train(tmp_path / "whole", epochs=4)
    train(tmp_path, [Do("on_fit_epoch_end", lambda run: run.save("each"))], epochs=4, body=body)
    points = [(one.manifest.epoch, one.manifest.batch, one.manifest.resume_point) for one in train.run.checkpoints]
    assert points == [(0, None, True), (1, None, True), (2, 1, True), (2, None, False)]
    again, run, events = train(tmp_path, epochs=4, resume=True, seed=5)
    assert events.count("on_train_batch_end") == 8
    assert run.step == 20
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_the_best_checkpoint_is_one_to_resume_from(tmp_path):
    checkpoint = Checkpoint(Best("fitness"))
    _, run, events = train(tmp_path, [checkpoint])
    assert [one.manifest.resume_point for one in run.checkpoints] == [True]
    assert events[events.index("on_model_save") - 1] == "on_fit_epoch_end"


def test_a_checkpoint_inside_an_epoch_is_one_to_resume_from(tmp_path):
    _, run, _ = train(tmp_path, [Do("optimizer_step", lambda run: run.step % 7 or run.save("each seventh"))])
    assert [(one.manifest.step, one.manifest.batch, one.manifest.resume_point) for one in run.checkpoints] == [
        (7, 1, True),
        (14, 3, True),
    ]


def test_resume_without_a_run_starts_afresh_and_says_so(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "epochal"):
        _, run, _ = train(tmp_path, resume=True)
    assert "there is no run 'run' in" in caplog.text
    assert len(run.history) == 3


def test_resume_from_a_path_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="there is no run or checkpoint at"):
        train(tmp_path, resume=tmp_path / "nowhere")


def test_a_checkpoint_of_another_model_names_what_differs(tmp_path):
    train(tmp_path, [Do("on_fit_epoch_end", lambda run: run.save("each"))])
    net = torch.nn.Sequential(torch.nn.Linear(3, 9), torch.nn.Dropout(0.3), torch.nn.Linear(9, 1))
    opt = torch.optim.AdamW(net.parameters())
    loop = Loop(
        model=net,
        optimizer=opt,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(opt, 6),
        dir=tmp_path,
        name="run",
        resume=True,
    )
    with pytest.raises(CheckpointError, match=r"0.weight: saved \(8, 3\), model \(9, 3\)"):
        loop.__enter__()


def test_environment_variable_resumes_a_script_that_does_not_say(tmp_path, monkeypatch):
    train(tmp_path, [Do("on_fit_epoch_end", lambda run: run.save("each"))], epochs=2)
    monkeypatch.setenv("EPOCHAL_RESUME", str(tmp_path / "run"))
    _, run, events = train(tmp_path, epochs=3)
    assert events[0] == "on_resume"
    assert len(run.history) == 3


def test_set_lr_is_the_rate_of_the_next_step_and_the_schedule_runs_on_unseen(tmp_path):
    net, opt = make()
    schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    used = []
    with Loop(model=net, optimizer=opt, scheduler=schedule, dir=tmp_path) as run:
        run.add_callback("optimizer_step", lambda run: used.append(opt.param_groups[0]["lr"]))
        for epoch in run.epochs(6):
            for x in run.batches(BATCHES[:1]):
                if epoch == 1:
                    run.set_lr(0.3)
                    assert run.lr == {"pg0": 0.3}
                if epoch == 3:
                    run.set_lr(None)
                if epoch == 4:
                    run.scale_lr(0.1)
                step(net, opt, x)
            schedule.step()
    assert used == pytest.approx([0.01, 0.3, 0.3, 0.01 / 8, 0.01 / 16 * 0.1, 0.01 / 32 * 0.1])


def test_a_loop_is_for_one_training_and_its_generators_say_where_they_belong(tmp_path):
    net, opt = make()
    loop = Loop(model=net, optimizer=opt, dir=tmp_path)
    with loop as run:
        with pytest.raises(AttachError, match="outside an epoch"):
            next(run.batches(BATCHES))
        for _ in run.epochs(1):
            with pytest.raises(AttachError, match="inside an epoch"):
                next(run.epochs(3))
            list(run.batches(BATCHES))
            with run.validation():
                pass
            with pytest.raises(AttachError, match="before it"):
                next(run.batches(BATCHES))
    with pytest.raises(AttachError, match="one training"):
        loop.__enter__()
    with pytest.raises(AttachError, match="inside `with Loop"):
        next(run.epochs(3))


def test_reading_a_stale_value_at_train_epoch_end_warns_once(tmp_path, caplog):
    read = []
    with caplog.at_level(logging.WARNING, "epochal"):
        train(tmp_path, [Do("on_train_epoch_end", lambda run: read.append(run.fitness))], epochs=4)
    warnings = [one.getMessage() for one in caplog.records]
    assert read == [None, -1.0, -0.5, -1 / 3]
    assert len(warnings) == 1
    assert "epoch 0" in warnings[0]
    assert "on_fit_epoch_end" in warnings[0]


def test_a_metric_that_was_never_measured_names_the_nearest(tmp_path):
    with pytest.raises(
        MetricNotFound, match=r"no metric 'val/los' .* did you mean 'val/loss'\? Logged: val/loss, train/loss"
    ):
        train(tmp_path, [Do("on_fit_epoch_end", lambda run: run.metrics["val/los"])])
