"""The range test finds the rate at which a loss falls fastest, and the training never learns that it was there."""

import copy
import json
import math
import random

import numpy as np
import pytest

from epochal import LearningRateFinder, Loop
from epochal.callbacks.range_test import RangeTest
from epochal.core.errors import ArgumentError, CapabilityError

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
nn = torch.nn


def half_square(model, batch):
    return 0.5 * 8.0 * model.weight.square().sum()


def scalar(weight=1.0, lr=0.1, **options):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    return model, torch.optim.SGD(model.parameters(), lr=lr, **options)


def find(model, optimizer, finder, run_dir, **options):
    """Run a training of no epoch with a finder, and return the run."""
    with Loop(model=model, optimizer=optimizer, callbacks=[finder], dir=run_dir, **options) as run:
        for _ in run.epochs(0):
            pass
    return run


def curve(run):
    return json.loads((run.dir / "learning_rate_finder.json").read_text())


# -- what it finds -------------------------------------------------------------------------------------------------


def test_on_a_parabola_the_losses_are_those_of_the_closed_form_and_turn_at_two_over_the_curvature(run_dir):
    """f(w) = 8 w^2 / 2 by gradient descent: w becomes (1 - 8 rate) w, so the loss falls exactly for rates < 2/8."""
    found = curve(find(*scalar(), LearningRateFinder(loss=half_square, data=[0], start=1e-4, end=10.0), run_dir))
    weight, expected = 1.0, []
    for rate in found["rates"]:
        expected.append(4.0 * weight**2)
        weight *= 1 - 8.0 * rate
    assert found["losses"] == pytest.approx(expected, rel=1e-4)
    growing = [
        rate
        for rate, now, then in zip(found["rates"], found["losses"], found["losses"][1:], strict=False)
        if then > now
    ]
    assert min(growing) == min(rate for rate in found["rates"] if rate > 2 / 8)
    assert found["ended"] == "diverged"
    assert 0.02 / 8 < found["suggestion"] < 2 / 8


def test_suggests_a_rate_below_two_over_the_largest_eigenvalue_of_a_least_squares_problem(run_dir):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 5, generator=generator) * torch.tensor([1.0, 2.0, 3.0, 0.5, 4.0])
    y = x @ torch.randn(5, 1, generator=generator)
    limit = 2 / float(torch.linalg.eigvalsh(2 * x.T @ x / len(x)).max())
    model = nn.Linear(5, 1, bias=False)
    finder = LearningRateFinder(
        loss=lambda model, batch: (model(batch[0]) - batch[1]).square().mean(), data=[(x, y)], start=1e-5
    )
    run = find(model, torch.optim.SGD(model.parameters(), lr=0.1), finder, run_dir)
    assert 0.01 * limit < finder.suggestion < limit
    tried = curve(run)["rates"]
    assert limit < tried[-1] < 30 * limit  # it was seen to diverge soon after it had to


def brute_force(model, optimizer, loss, batches, start, end, steps, smooth=0.98, diverged=4.0):
    """A range test as one would write it by hand, on the objects themselves."""
    rates = np.geomspace(start, end, steps)
    average, best, tried, smoothed, losses = 0.0, math.inf, [], [], []
    for index, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        value = loss(model, batches[index % len(batches)])
        value.backward()
        optimizer.step()
        average = smooth * average + (1 - smooth) * value.item()
        losses.append(value.item())
        tried.append(rate)
        smoothed.append(average / (1 - smooth ** (index + 1)))
        best = min(best, smoothed[-1])
        if smoothed[-1] > diverged * best:
            break
    turn, width = int(np.argmin(smoothed)) + 1, 13  # a sixth of 80 rates
    lines = [
        np.polyfit(np.log(tried[one : one + width]), losses[one : one + width], 1) for one in range(turn - width + 1)
    ]
    return tried, smoothed, tried[int(np.argmin([slope for slope, _ in lines])) + width // 2]


def cross_entropy(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def digits_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 3))


def blobs(count=96):
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(0, 3, (count,), generator=generator)
    return torch.randn(count, 16, generator=generator) + 1.5 * nn.functional.one_hot(y, 16), y


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_agrees_with_a_range_test_written_by_hand(kind, run_dir):
    x, y = blobs()
    batches = list(zip(x.split(16), y.split(16), strict=True))
    model = digits_net()
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.01)
    torch.manual_seed(5)
    expected = brute_force(*copy.deepcopy((model, optimizer)), cross_entropy, batches, 1e-6, 10.0, 80)
    torch.manual_seed(5)
    finder = LearningRateFinder(loss=cross_entropy, data=batches, start=1e-6, steps=80)
    found = curve(find(model, optimizer, finder, run_dir))
    assert found["rates"] == pytest.approx(expected[0], rel=1e-9)
    assert found["smoothed"] == pytest.approx(expected[1], rel=1e-5)
    assert finder.suggestion == found["suggestion"] == pytest.approx(expected[2], rel=1e-9)


def test_the_loss_has_diverged_where_lightning_says_so():
    """Lightning's callback keeps the same average and ends above four times the best."""
    finder = pytest.importorskip("lightning.pytorch.tuner.lr_finder")
    theirs = finder._LRCallback(num_training=60, early_stop_threshold=4.0)
    ours = RangeTest(1e-5, 1.0, 60, smooth=0.98, diverged=4.0)
    generator = np.random.default_rng(0)
    for step, rate in enumerate(ours.rates()):
        loss = float(abs(generator.normal(1.0, 0.1)) + math.exp(max(0.0, step - 35) / 4) - 1)
        theirs.avg_loss = theirs.beta * theirs.avg_loss + (1 - theirs.beta) * loss
        smoothed = theirs.avg_loss / (1 - theirs.beta ** (step + 1))
        stop = step > 1 and smoothed > theirs.early_stop_threshold * theirs.best_loss
        theirs.best_loss = smoothed if step == 0 or smoothed < theirs.best_loss else theirs.best_loss
        theirs.losses.append(smoothed)
        if not ours.add(rate, loss):
            break
        assert not stop
    assert stop
    assert ours.smoothed == pytest.approx(theirs.losses)


# -- what it leaves alone ------------------------------------------------------------------------------------------


class Noisy(torch.utils.data.Dataset):
    """A data set that draws from every generator there is, and from two of its own."""

    def __init__(self):
        self.x, self.y = blobs(48)
        self.numpy = np.random.default_rng(7)
        self.python = random.Random(8)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(()).item()
        return self.x[index] + 0.1 * (noise + self.numpy.random() + self.python.random()), self.y[index]


def trained(run_dir, finder, workers, own_generator, persistent=False):
    """Train with shuffling, dropout, BatchNorm and a schedule, and return all that a training can differ in."""
    torch.manual_seed(0)
    random.seed(1)
    np.random.seed(2)
    model = digits_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    cross_entropy(model, blobs(8)).backward()  # the optimizer has a state, and gradients are there
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=30)
    loader = torch.utils.data.DataLoader(
        Noisy(), batch_size=8, shuffle=True, num_workers=workers, persistent_workers=persistent,
        generator=torch.Generator().manual_seed(3) if own_generator else None,
    )  # fmt: skip
    callbacks = [finder(loader)] if finder else []
    losses, before = [], []

    def note(run):
        before.append([None if one.grad is None else one.grad.clone() for one in model.parameters()])
        before.append(copy.deepcopy([optimizer.state_dict(), scheduler.state_dict(), model.state_dict()]))

    with Loop(model=model, optimizer=optimizer, scheduler=scheduler, callbacks=callbacks, dir=run_dir) as run:
        run.add_callback("on_train_start", note)
        for _ in run.epochs(3):
            for x, y in run.batches(loader):
                optimizer.zero_grad()
                loss = cross_entropy(model, (x, y))
                loss.backward()
                optimizer.step()
                scheduler.step()
                losses.append(loss.item())
    randoms = [random.random(), np.random.rand(), torch.rand(3)]
    return losses, before, model.state_dict(), optimizer.state_dict(), scheduler.state_dict(), randoms, run


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize(
    ("workers", "own_generator", "persistent"),
    [(0, False, False), (0, True, False), (2, False, False), (2, True, True)],
)
def test_leaves_the_training_bit_identical(run_dir, workers, own_generator, persistent):
    def finder(loader):
        return LearningRateFinder(loss=cross_entropy, data=loader, start=1e-4, steps=20)

    *without, _ = trained(run_dir, None, workers, own_generator, persistent)
    *with_it, run = trained(run_dir, finder, workers, own_generator, persistent)
    for mine, plain in zip(with_it, without, strict=True):
        assert same(mine, plain)
    assert (run.dir / "learning_rate_finder.png").stat().st_size > 5000
    assert len(curve(run)["rates"]) == 20


def test_a_loss_that_uses_the_model_itself_is_refused_and_the_model_is_put_back(run_dir, caplog):
    model = digits_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(dict(model.state_dict()))
    finder = LearningRateFinder(loss=lambda _, batch: cross_entropy(model, batch), data=[blobs(16)])
    run = find(model, optimizer, finder, run_dir)
    assert "must use the model it is given" in caplog.text
    assert same(dict(model.state_dict()), before)
    assert all(one.grad is None for one in model.parameters())
    assert run.end_reason == "completed"


def test_a_model_with_frozen_parts_stays_frozen_in_the_test_and_one_in_eval_mode_is_trained(run_dir):
    modes = []

    def loss(model, batch):
        modes.append((model.training, model[1].training))
        return cross_entropy(model, batch)

    frozen, evaluated = digits_net(), digits_net()
    frozen[1].eval()
    evaluated.eval()
    for model in (frozen, evaluated):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        find(model, optimizer, LearningRateFinder(loss=loss, data=[blobs(16)], steps=1), run_dir)
    assert modes == [(True, False), (True, True)]
    assert not evaluated.training


def test_parameter_groups_keep_their_ratio(run_dir):
    seen = []
    model = digits_net()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[4].parameters(), "lr": 0.02}]

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    find(model, Watched(groups), LearningRateFinder(loss=cross_entropy, data=[blobs(16)], start=1e-3, steps=5), run_dir)
    assert [first for first, _ in seen] == pytest.approx(np.geomspace(1e-3, 10.0, 5)[: len(seen)])
    assert [second / first for first, second in seen] == pytest.approx([0.2] * len(seen))


# -- what it does with it ------------------------------------------------------------------------------------------


def test_applied_the_schedule_keeps_its_shape_and_its_highest_rate_is_the_suggestion(run_dir):
    model, optimizer = scalar(lr=0.2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=10)
    finder = LearningRateFinder(loss=half_square, data=[0], apply=True)
    used, planned = [], []
    with Loop(model=model, optimizer=optimizer, scheduler=scheduler, callbacks=[finder], dir=run_dir) as run:
        for _ in run.epochs(1):
            for _ in run.batches(range(10)):
                planned.append(scheduler.get_last_lr()[0])
                used.append(run.lr["pg0"])
                optimizer.step()
                scheduler.step()
    assert max(used) == pytest.approx(finder.suggestion * max(planned) / 0.5)
    assert [mine / plain for mine, plain in zip(used, planned, strict=True)] == pytest.approx(
        [finder.suggestion / 0.5] * 10
    )
    assert run.past[-1].notes[0].startswith(f"LearningRateFinder: a rate of {finder.suggestion:.3g} instead of 0.5")


def test_with_several_optimizers_the_first_is_tried_and_scaled(run_dir):
    model, optimizer = scalar(lr=0.2)
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    finder = LearningRateFinder(loss=half_square, data=[0], apply=True)
    with Loop(model=model, optimizer=[optimizer, other], callbacks=[finder], dir=run_dir) as run:
        rates = [dict(run.lr) for _ in run.epochs(1)]
    assert rates == [{"pg0": pytest.approx(finder.suggestion), "optimizer1/pg0": 0.3}]


def test_a_resumed_training_is_left_alone(run_dir):
    tried = []

    def loss(model, batch):
        tried.append(1)
        return half_square(model, batch)

    for resume, epochs in ((False, 1), (True, 2)):
        model, optimizer = scalar()
        finder = LearningRateFinder(loss=loss, data=[0], steps=12)
        with Loop(
            model=model, optimizer=optimizer, callbacks=[finder], dir=run_dir, name="again", resume=resume
        ) as run:
            for _ in run.epochs(epochs):
                run.save("here")
    assert len(tried) == 12
    assert finder.suggestion is not None  # the checkpoint's


@pytest.mark.slow
def test_a_second_training_with_the_same_object_is_tried_anew(run_dir):
    finder = LearningRateFinder(loss=half_square, data=[0])
    find(*scalar(), finder, run_dir)
    first = finder.suggestion
    find(*scalar(), finder, run_dir)
    assert finder.suggestion == first
    copied = copy.deepcopy(finder)
    find(*scalar(), copied, run_dir)
    assert copied.suggestion == first


# -- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "data", "options", "said"),
    [
        (
            lambda model, batch: half_square(model, batch) * float("nan"),
            [0],
            {},
            "loss of the first batch is not finite",
        ),
        (half_square, [], {}, "there was no batch to try"),
        (half_square, [0], {"steps": 3}, "3 rates are too few"),
        (half_square, [0], {"start": 3.0, "end": 50.0}, "give a smaller start"),
        (lambda model, batch: 0 * model.weight.sum() + 1, [0], {}, "the loss fell nowhere"),
        (lambda model, batch: 1.0, [0], {}, "must return the loss as a tensor, not 1.0"),
    ],
)
def test_what_cannot_be_found_is_said_and_the_training_goes_on(loss, data, options, said, run_dir, caplog):
    finder = LearningRateFinder(loss=loss, data=data, apply=True, **options)
    run = find(*scalar(), finder, run_dir)
    assert said in caplog.text
    assert finder.suggestion is None
    assert run.end_reason == "completed"
    assert run.lr == {"pg0": 0.1}


def test_a_loss_that_becomes_infinite_ends_the_test_with_what_was_seen(run_dir):
    """A cubic overflows float32 within few steps, before its average has grown fourfold."""
    model, optimizer = scalar(weight=1.0)

    def steep(model, batch):
        return model.weight.abs().sum() if model.weight.abs() < 2 else model.weight.sum() * float("inf")

    found = curve(find(model, optimizer, LearningRateFinder(loss=steep, data=[0], start=1e-3, end=100.0), run_dir))
    assert found["ended"] == "not finite"
    assert all(map(math.isfinite, found["losses"]))
    assert found["suggestion"] is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": half_square, "data": iter([0])}, "can be gone through only once"),
        ({"loss": half_square, "data": (one for one in [0])}, "a DataLoader or a list"),
        ({"loss": half_square}, "belong together"),
        ({"data": [0]}, "belong together"),
        ({"loss": 3, "data": [0]}, "must be a function"),
        ({"loss": half_square, "data": 3}, "cannot be iterated"),
        ({"start": 1.0, "end": 0.1}, "must be below"),
        ({"start": 0.0}, "above 0"),
        ({"steps": 0}, "at least 1"),
        ({"diverged": 1.0}, "must be above 1"),
        ({"smooth": 1.0}, "below 1"),
    ],
)
def test_wrong_arguments_are_said_at_once(options, said):
    with pytest.raises(ArgumentError, match=said):
        LearningRateFinder(**options)


def test_a_loop_asks_for_the_loss_it_does_not_know():
    model, optimizer = scalar()
    with pytest.raises(CapabilityError, match=r"give it: LearningRateFinder\(loss="):
        Loop(model=model, optimizer=optimizer, callbacks=[LearningRateFinder()])
