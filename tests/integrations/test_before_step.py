"""Before a step: callbacks see the gradients that the optimizer will use, may change them, and may leave the step out."""

import copy

import pytest
import torch
from torch import nn

from epochal import Callback, Loop, attach
from epochal.core.errors import AttachError, CapabilityError, SignatureError
from epochal.core.run import Run
from epochal.testing import simulate

ROWS = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]])


class Before(Callback):
    """Does something with the gradients before a step."""

    def __init__(self, deed):
        self.deed = deed

    def before_step(self, run, optimizer):
        self.deed(run, optimizer)


def train(*callbacks, optimizer=torch.optim.SGD, models=1, **options):
    torch.manual_seed(0)
    nets = [nn.Linear(2, 1) for _ in range(models)]
    optimizers = [optimizer(net.parameters(), lr=0.1, **options) for net in nets]
    model = nn.ModuleList(nets)
    with Loop(model=model, optimizer=optimizers, callbacks=callbacks) as run:
        for _ in run.epochs(1):
            for row in run.batches(ROWS):
                for net, one in zip(nets, optimizers, strict=True):
                    one.zero_grad()
                    net(row).sum().backward()
                    one.step()
    return model, optimizers, run


def test_the_gradients_are_the_ones_the_step_will_use():
    seen = []
    train(Before(lambda run, optimizer: seen.append((run.step, run.model[0].weight.grad.flatten().tolist()))))
    assert seen == [(index, row.tolist()) for index, row in enumerate(ROWS)]


def test_each_optimizer_of_a_loop_is_told():
    seen = []
    _, optimizers, run = train(Before(lambda run, optimizer: seen.append(optimizer)), models=2)
    assert seen == optimizers * 3
    assert run.step == 3


def test_callbacks_change_gradients_in_the_order_of_the_list():
    def add(run, optimizer):
        for parameter in run.model.parameters():
            parameter.grad += 1

    def double(run, optimizer):
        for parameter in run.model.parameters():
            parameter.grad *= 2

    model, _, _ = train(Before(add), Before(double))
    torch.manual_seed(0)
    expected = nn.Linear(2, 1).weight - 0.1 * 2 * (ROWS.sum(0) + 3)
    assert torch.allclose(model[0].weight, expected)


@pytest.mark.parametrize(("kind", "options"), [
    (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (torch.optim.AdamW, {"weight_decay": 0.1}),
    (torch.optim.AdamW, {"foreach": True}),
])  # fmt: skip
def test_a_step_left_out_changes_neither_weights_nor_optimizer_nor_the_count(kind, options):
    states = []

    def leave_out_the_second(run, optimizer):
        if run.batch == 1:
            run.skip_step()
            states.append((copy.deepcopy(run.model.state_dict()), copy.deepcopy(optimizer.state_dict()["state"])))

    class After(Callback):
        def on_train_batch_end(self, run):
            if run.batch == 1:
                state = copy.deepcopy(run.optimizer.state_dict()["state"])
                states.append((copy.deepcopy(run.model.state_dict()), state))

    _, _, run = train(Before(leave_out_the_second), After(), optimizer=kind, **options)
    (weights, state), (weights_after, state_after) = states
    assert all(torch.equal(weights[name], weights_after[name]) for name in weights)
    assert str(state) == str(state_after)
    assert run.step == 2


def test_skip_step_elsewhere_is_an_error():
    class Wrong(Callback):
        def on_train_batch_end(self, run):
            run.skip_step()

    with pytest.raises(AttachError, match=r"works inside before_step\(run, optimizer\) only"):
        train(Wrong())


def test_an_error_before_a_step_says_whose_it_is_and_a_guarded_one_costs_nothing():
    def fail(run, optimizer):
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError) as caught:
        train(Before(fail))
    assert "raised by Before in before_step" in caught.value.__notes__
    guarded = Before(fail)
    guarded.guarded = True
    _, _, run = train(guarded)
    assert run.step == 3
    assert run.past[-1].failures == {"Before": 3}


def test_a_trainer_that_shows_no_gradients_refuses_and_a_wrong_signature_is_said_at_once():
    run = Run(host="x", provides=frozenset())
    with pytest.raises(CapabilityError, match="Before requires gradients, which x cannot deliver"):
        run.add(Before(print))

    class Wrong(Callback):
        def before_step(self, run): ...

    with pytest.raises(SignatureError, match="with two arguments, the run and the optimizer"):
        simulate([Wrong()], [])


def test_what_a_trainer_owns_is_refused_with_its_own_option():
    class Accumulates(Callback):
        requires = frozenset({"accumulation"})

    run = Run(host="x", provides=frozenset(), owns={"accumulation": "x accumulates itself: set nbs"})
    with pytest.raises(CapabilityError, match="Accumulates cannot be used here: x accumulates itself: set nbs"):
        run.add(Accumulates())


def test_nothing_is_hooked_that_nobody_asks_for():
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, run):
            seen.append((len(run.optimizer._optimizer_step_pre_hooks), len(run.model._forward_hooks)))

    train(Look())
    assert seen == [(0, 0)] * 3


def test_a_loop_shows_outputs_to_who_requires_them_and_leaves_no_hook():
    seen = []

    class Outputs(Callback):
        requires = frozenset({"outputs"})

        def on_train_batch_end(self, run):
            seen.append(run.outputs)

        def on_val_batch_end(self, run):
            seen.append(run.outputs)

    net = nn.Linear(2, 1)
    with Loop(model=net, callbacks=[Outputs()]) as run:
        for _ in run.epochs(1):
            expected = [net(row) for row in run.batches(ROWS)]
            with run.validation():
                expected += [net(row) for row in run.batches(ROWS)]
        assert run.outputs is None
    assert all(a is b for a, b in zip(seen, expected, strict=True))
    assert not net._forward_hooks


def test_the_error_that_ends_a_training_is_told():
    seen = []

    class Look(Callback):
        def on_exception(self, run):
            seen.append(run.error)

        def teardown(self, run):
            seen.append(run.error)

    def fail(run, optimizer):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        train(Look(), Before(fail))
    assert seen == [caught.value] * 2
    _, _, run = train(Look())
    assert run.error is None
    assert seen[2:] == [None]


def test_yolo_shows_clipped_gradients_and_this_batchs_losses_and_leaves_steps_out(yolo, quick):
    seen, weights = [], []

    def look(run, optimizer):
        total = torch.stack([one.grad.norm() for one in run.model.parameters() if one.grad is not None]).norm()
        seen.append(
            (run.step, run.batch, run.metrics["train/loss"], float(run.trainer.loss_items["box_loss"]), total.item())
        )
        weights.append({name: one.clone() for name, one in run.model.named_parameters()})
        run.skip_step()

    model = yolo()
    run = attach(model, Before(look))
    logged = []
    run.add_callback("on_train_epoch_end", lambda run: logged.append(run.metrics["train/loss"]))
    model.train(**quick(epochs=1))
    assert [(step, batch) for step, batch, *_ in seen] == [(0, 0), (0, 1)]
    assert all(total <= 10.001 for *_, total in seen)
    assert run.step == 0
    assert all(torch.equal(one, weights[1][name]) for name, one in weights[0].items())
    assert logged == [pytest.approx(sum(loss for _, _, loss, *_ in seen) / 2)]
