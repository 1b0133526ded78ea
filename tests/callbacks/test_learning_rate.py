"""Schedules give the rates of PyTorch's own schedulers, of Transformers', and of closed forms."""

import math
from functools import partial

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from epochal import LearningRate, ReduceLROnPlateau
from epochal.callbacks.schedules import (
    Cosine,
    Factor,
    Linear,
    OneCycle,
    Rate,
    Schedule,
    Step,
    Warmup,
    WarmupStableDecay,
)
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError
from epochal.testing import simulate

torch = pytest.importorskip("torch")
schedulers = torch.optim.lr_scheduler


def torch_rates(make, steps, lr=0.1):
    """The rates after 0, 1, ... steps of a scheduler of PyTorch."""
    optimizer = torch.optim.SGD([torch.zeros((), requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def our_rates(schedule, steps, total=None, lr=0.1):
    return [schedule.rates({"pg0": lr}, done, total)["pg0"] for done in range(steps + 1)]


@settings(deadline=None)
@given(length=st.integers(1, 50), low=st.floats(0, 0.05))
def test_cosine_is_torchs(length, low):
    expected = torch_rates(lambda optimizer: schedulers.CosineAnnealingLR(optimizer, T_max=length, eta_min=low), length)
    assert our_rates(Cosine(min_lr=low), length, total=length) == pytest.approx(expected, abs=1e-12)


def test_cosine_stays_at_its_end():
    assert our_rates(Cosine(min_lr=0.01, length=3), 9)[3:] == [0.01] * 7


@settings(deadline=None)
@given(size=st.integers(1, 12), gamma=st.floats(0.05, 1.5))
def test_step_is_torchs(size, gamma):
    expected = torch_rates(lambda optimizer: schedulers.StepLR(optimizer, size, gamma), 30)
    assert our_rates(Step(size, gamma=gamma), 30) == pytest.approx(expected, rel=1e-9)


def test_step_at_milestones_is_torchs():
    expected = torch_rates(lambda optimizer: schedulers.MultiStepLR(optimizer, [3, 4, 9], 0.3), 12)
    assert our_rates(Step([3, 4, 9], gamma=0.3), 12) == pytest.approx(expected)


@settings(deadline=None)
@given(length=st.integers(1, 40), start=st.floats(0.01, 1), end=st.floats(0, 1))
def test_linear_is_torchs(length, start, end):
    expected = torch_rates(lambda optimizer: schedulers.LinearLR(optimizer, start, end, total_iters=length), length + 3)
    assert our_rates(Linear(start=start, end=end), length + 3, total=length) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(
    length=st.integers(4, 60),
    warmup=st.sampled_from([0.1, 0.3, 0.5, 0.75]),
    shape=st.sampled_from([("cosine", "cos"), ("linear", "linear")]),
    div=st.floats(2, 50),
)
def test_one_cycle_is_torchs(length, warmup, shape, div):
    assume(warmup * length > 1)  # PyTorch's divides by zero there
    ours, theirs = shape
    make = partial(
        schedulers.OneCycleLR, max_lr=0.5, total_steps=length, pct_start=warmup, anneal_strategy=theirs,
        div_factor=div, final_div_factor=100.0, cycle_momentum=False,
    )  # fmt: skip
    schedule = OneCycle(max_lr=0.5, warmup=warmup, shape=ours, div_factor=div, final_div_factor=100.0)
    expected = torch_rates(make, length - 1)
    assert our_rates(schedule, length - 1, total=length) == pytest.approx(expected, rel=1e-9)
    assert schedule.rate(0.1, length + 5, length) == pytest.approx(expected[-1])


@settings(deadline=None)
@given(warmup=st.integers(1, 10), rest=st.integers(1, 30), start=st.floats(0.01, 0.9))
def test_cosine_behind_a_warmup_is_torchs_sequence(warmup, rest, start):
    def make(optimizer):
        first = schedulers.LinearLR(optimizer, start, total_iters=warmup)
        return schedulers.SequentialLR(optimizer, [first, schedulers.CosineAnnealingLR(optimizer, rest)], [warmup])

    ours = our_rates(Warmup(warmup, then=Cosine(), start=start), warmup + rest, total=warmup + rest)
    assert ours == pytest.approx(torch_rates(make, warmup + rest), abs=1e-9)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize("low", [0.0, 0.1])
def test_warmup_stable_decay_is_transformers(shape, low):
    optimization = pytest.importorskip("transformers.optimization")
    make = partial(
        optimization.get_wsd_schedule, num_warmup_steps=5, num_decay_steps=8, num_stable_steps=20,
        warmup_type="linear", decay_type=shape, min_lr_ratio=low,
    )  # fmt: skip
    ours = WarmupStableDecay(warmup=5, decay=8, shape=shape, min_lr=low * 0.1, start=low)
    assert our_rates(ours, 40, total=33) == pytest.approx(torch_rates(make, 40), abs=1e-12)


def test_shares_of_the_training_are_the_numbers_they_stand_for():
    assert our_rates(WarmupStableDecay(warmup=0.1, decay=0.2), 50, 50) == our_rates(
        WarmupStableDecay(warmup=5, decay=10), 50, 50
    )
    assert our_rates(Warmup(0.1, then=Cosine()), 50, 50) == our_rates(Warmup(5, then=Cosine()), 50, 50)


def test_a_function_returns_a_factor_as_for_lambda_lr():
    expected = torch_rates(lambda optimizer: schedulers.LambdaLR(optimizer, lambda epoch: 0.9**epoch), 8)
    assert simulate([LearningRate(lambda epoch: 0.9**epoch)], [{}] * 8).lrs == pytest.approx(expected[1:])


def test_rate_takes_what_the_function_returns_as_the_rate():
    assert simulate([LearningRate(Rate(lambda epoch: 1 / (epoch + 1)))], [{}] * 3, lr=(0.1, 0.2)).lrs == [
        (1 / 2, 1 / 2), (1 / 3, 1 / 3), (1 / 4, 1 / 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: schedulers.CosineAnnealingLR(optimizer, T_max=4),  # goes up again, unlike ours
        partial(schedulers.ExponentialLR, gamma=0.8),
        lambda optimizer: schedulers.CosineAnnealingWarmRestarts(optimizer, T_0=3),
        lambda optimizer: schedulers.OneCycleLR(optimizer, max_lr=0.3, total_steps=20),
    ],
    ids=["cosine", "partial", "restarts", "one-cycle with momentum"],
)
def test_any_scheduler_of_torch_gives_its_own_rates(make):
    assert simulate([LearningRate(make)], [{}] * 10).lrs == pytest.approx(torch_rates(make, 10)[1:])


def test_each_group_has_its_own_rate():
    lrs = simulate([LearningRate(Cosine())], [{}] * 4, lr=(0.1, 0.02)).lrs
    closed = [(1 + math.cos(math.pi * done / 4)) / 2 for done in range(1, 5)]
    assert [pair[0] for pair in lrs] == pytest.approx([0.1 * factor for factor in closed])
    assert [pair[1] for pair in lrs] == pytest.approx([0.02 * factor for factor in closed])


class Rates(Callback):
    """Notes the rate with which every step is done."""

    def __init__(self):
        self.used = []

    def on_train_batch_start(self, run):
        self.used.append(run.lr["pg0"])


def test_the_first_epoch_trains_with_the_schedules_first_rate():
    seen = Rates()
    simulate([LearningRate(Warmup(2)), seen], [{}] * 3)
    assert seen.used == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])


def test_steps_are_counted_over_epochs():
    seen = Rates()
    simulate([LearningRate(Cosine(), every="step"), seen], [{}] * 3, batches=4)
    expected = torch_rates(lambda optimizer: schedulers.CosineAnnealingLR(optimizer, T_max=12), 11)
    assert seen.used == pytest.approx(expected)


def test_accumulated_batches_shorten_the_schedule_to_the_steps_there_are():
    from epochal.core import lifetime
    from epochal.core.run import ALL_CAPABILITIES, Run

    class Host:
        def groups(self):
            return {"pg0": 0.1}

        def take_over(self):
            pass

    run = Run(host="test", provides=ALL_CAPABILITIES)
    run.engine.rate_host = Host()
    run.add(LearningRate(Linear(), every="step"))
    lifetime.begin(run)
    run.engine.train_start(2, None)
    used = []
    for epoch in range(2):
        run.engine.epoch_start(epoch, 6)
        for batch in range(6):
            run.engine.batch_start(batch)
            if batch % 3 == 2:
                used.append(run.lr["pg0"])
                run.engine.stepped()
            run.engine.batch_end()
        run.engine.train_epoch_end()
        run.engine.epoch_end()
    run.engine.train_end()
    lifetime.finish(run)
    assert used == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_factors_and_overrides_count_on_top_of_the_schedule():
    class Person(Callback):
        def on_fit_epoch_end(self, run):
            if run.epoch == 2:
                run.set_lr(0.7)
            if run.epoch == 4:
                run.set_lr(None)

    flat = [{"val/loss": 1.0}] * 8
    policies = [LearningRate(Linear()), ReduceLROnPlateau("val/loss", factor=0.5, patience=2), Person()]
    lrs = simulate(policies, flat).lrs
    line = [0.1 * (1 - done / 8) for done in range(1, 9)]
    assert lrs == pytest.approx(
        [line[0], line[1], 0.7, 0.7, line[4] / 4, line[5] / 4, line[6] / 8, line[7] / 8], abs=1e-12
    )


def test_a_training_of_unknown_length_is_refused_with_the_cure():
    from epochal.core import lifetime
    from epochal.core.run import ALL_CAPABILITIES, Run

    class Host:
        def groups(self):
            return {"pg0": 0.1}

        def take_over(self):
            pass

    def start(callback):
        run = Run(host="test", provides=ALL_CAPABILITIES)
        run.engine.rate_host = Host()
        run.add(callback)
        lifetime.begin(run)
        try:
            run.engine.train_start(None)
        finally:
            lifetime.finish(run)

    with pytest.raises(ArgumentError, match="number of epochs; pass length="):
        start(LearningRate(Cosine()))
    start(LearningRate(Cosine(), length=10))
    start(LearningRate(Cosine(length=10)))
    start(LearningRate(Step(3)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LearningRate("cosine"), "such as Cosine"),
        (lambda: LearningRate(Cosine), "pass an object"),
        (lambda: LearningRate(Cosine(), every="batch"), "every must be"),
        (lambda: LearningRate(Cosine(), length=0), "length must be"),
        (lambda: Cosine(min_lr=-1), "min_lr"),
        (lambda: Cosine(length=0), "length"),
        (lambda: Step(0), "at must be"),
        (lambda: Warmup(1.5), "share of the training below 1"),
        (lambda: OneCycle(warmup=2), "between 0 and 1"),
        (lambda: OneCycle(shape="square"), "shape"),
        (
            lambda: LearningRate(schedulers.StepLR(torch.optim.SGD([torch.zeros(1)], 0.1), 3)),
            "lambda optimizer: StepLR",
        ),
    ],
)
def test_bad_arguments_are_refused_at_construction(make, said):
    with pytest.raises(ArgumentError, match=said):
        make()


@pytest.mark.parametrize("value", [float("nan"), -0.1, float("inf"), "0.1", None])
def test_a_function_that_returns_no_factor_is_named(value):
    def broken(epoch):
        return value

    with pytest.raises(ArgumentError, match=r"broken\(0\) returns must be"):
        simulate([LearningRate(broken)], [{}])


def test_torchs_plateau_scheduler_is_pointed_to_ours():
    with pytest.raises(ArgumentError, match=r"epochal\.ReduceLROnPlateau"):
        simulate([LearningRate(lambda optimizer: schedulers.ReduceLROnPlateau(optimizer))], [{}])


def test_a_schedule_of_the_users_own_is_one_method():
    class Halving(Schedule):
        def rate(self, base, done, total):
            return base / 2**done

    assert simulate([LearningRate(Halving())], [{}] * 3).lrs == [0.05, 0.025, 0.0125]
    assert Factor(lambda n: 0.5**n).rates({"a": 1.0}, 2, None) == {"a": 0.25}
