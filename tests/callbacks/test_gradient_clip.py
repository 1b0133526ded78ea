"""GradientClip does what PyTorch's own functions do, before each step, and says how large the gradients were."""

import math
from contextlib import nullcontext

import pytest

from epochal import EMA, Callback, GradientAccumulation, GradientClip, Loop, attach
from epochal.core.errors import ArgumentError

torch = pytest.importorskip("torch")
TorchDispatchMode = pytest.importorskip("torch.utils._python_dispatch").TorchDispatchMode


def parts(**options):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    data = [(torch.randn(4, 3), 10 * torch.randn(4, 1)) for _ in range(6)]
    return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, **options), data


def train(net, optimizer, data, callbacks=(), clip=None, scaler=None, scheduler=None):
    with Loop(model=net, optimizer=optimizer, scaler=scaler, callbacks=callbacks) as run:
        for _ in run.epochs(2):
            for x, y in run.batches(data):
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(net(x), y)
                (scaler.scale(loss) if scaler else loss).backward()
                if clip is not None:
                    if scaler:
                        scaler.unscale_(optimizer)
                    clip(net.parameters())
                if scaler:
                    scaler.step(optimizer)
                    scaler.update()
                else:
                    optimizer.step()
    return run


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


CASES = [
    (lambda: GradientClip(0.5), lambda p: torch.nn.utils.clip_grad_norm_(p, 0.5)),
    (lambda: GradientClip(max_norm=0.5, norm_type=1), lambda p: torch.nn.utils.clip_grad_norm_(p, 0.5, 1.0)),
    (
        lambda: GradientClip(0.3, norm_type=math.inf, foreach=False),
        lambda p: torch.nn.utils.clip_grad_norm_(p, 0.3, math.inf, foreach=False),
    ),
    (lambda: GradientClip(value=0.2), lambda p: torch.nn.utils.clip_grad_value_(p, 0.2)),
]


@pytest.mark.parametrize(("make", "clip"), CASES, ids=["norm", "norm 1", "norm inf", "value"])
@pytest.mark.parametrize("amp", ["plain", "scaler", "fused"])
def test_trains_bit_for_bit_as_with_torchs_function_in_the_loop(make, clip, amp):
    fused = {"fused": True} if amp == "fused" else {}
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0) if amp != "plain" else None for _ in range(2)]
    ours, theirs = parts(**fused), parts(**fused)
    train(*ours, callbacks=[make()], scaler=scalers[0])
    train(*theirs, clip=clip, scaler=scalers[1])
    assert same(ours[0], theirs[0])
    assert not same(ours[0], parts()[0])


class Norms(Callback):
    """Computes every norm itself, before the clip."""

    def __init__(self, norm_type):
        self.norm_type, self.seen = norm_type, []

    def before_step(self, run, optimizer):
        flat = torch.cat([one.grad.flatten() for group in optimizer.param_groups for one in group["params"]])
        self.seen.append(torch.linalg.vector_norm(flat, self.norm_type).item())


@pytest.mark.parametrize(
    ("clip", "norm_type", "limit"), [(GradientClip(50.0), 2, 50.0), (GradientClip(value=20.0), math.inf, 20.0)]
)
def test_logs_the_norm_before_and_the_share_of_steps_that_were_clipped(clip, norm_type, limit):
    norms = Norms(norm_type)
    run = train(*parts(), callbacks=[norms, clip])
    for epoch, row in enumerate(run.history):
        seen = norms.seen[6 * epoch : 6 * epoch + 6]
        assert row["train/grad_norm_before_clip"] == pytest.approx(sum(seen) / 6, rel=1e-5)
        assert row["train/grad_clipped"] == sum(one > limit for one in seen) / 6
    assert any(0 < row["train/grad_clipped"] < 1 for row in run.history)


class Reads(TorchDispatchMode):
    """Counts how often a number is read from a tensor, which on a device would be waited for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("clip", [GradientClip(0.5), GradientClip(value=0.1)])
def test_no_number_is_read_in_a_step_neither_by_those_that_average_and_accumulate(clip):
    net, optimizer, data = parts()
    reads = Reads()
    with Loop(model=net, optimizer=optimizer, callbacks=[GradientAccumulation(2), clip, EMA(0.9)]) as run:
        for _ in run.epochs(1):
            for number, (x, y) in enumerate(run.batches(data)):
                with reads if number > 2 else nullcontext():  # the first average is a copy
                    optimizer.zero_grad()
                    torch.nn.functional.mse_loss(net(x), y).backward()
                    optimizer.step()
        assert (run.step, reads.count) == (3, 0)
    with reads:
        torch.ones(1).item()
    assert reads.count == 1


def test_each_optimizer_is_clipped_by_itself_and_has_names_of_its_own():
    first, second = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizers = [torch.optim.SGD([one], lr=1.0) for one in (first, second)]
    model = torch.nn.ParameterList([first, second])
    with Loop(model=model, optimizer=optimizers, callbacks=[GradientClip(1.0)]) as run:
        for _ in run.epochs(1):
            for _ in run.batches([0]):
                (first @ torch.tensor([3.0, 4.0]) + second @ torch.tensor([0.3, 0.4])).backward()
                for optimizer in optimizers:
                    optimizer.step()
    assert first.tolist() == pytest.approx([-0.6, -0.8], rel=1e-5)
    assert second.tolist() == pytest.approx([-0.3, -0.4])
    row = run.history[0]
    assert row["train/grad_norm_before_clip"] == pytest.approx(5)
    assert row["train/grad_norm_before_clip/optimizer1"] == pytest.approx(0.5)
    assert (row["train/grad_clipped"], row["train/grad_clipped/optimizer1"]) == (1, 0)


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"value": 1.0}])
def test_a_gradient_that_is_no_number_is_an_error_where_that_is_wanted(options):
    for wanted in (True, False):
        net, optimizer, data = parts()
        data[1][1].fill_(math.inf)
        clip = GradientClip(error_if_nonfinite=wanted, **options)
        if wanted:
            with pytest.raises(RuntimeError, match=r"non-finite|absolute entry") as caught:
                train(net, optimizer, data, callbacks=[clip])
            assert any("GradientClip" in note for note in caught.value.__notes__)
        else:
            train(net, optimizer, data, callbacks=[clip])


def test_a_step_that_amp_leaves_out_is_not_clipped_and_no_error():
    for fused in ({}, {"fused": True}):
        net, optimizer, data = parts(**fused)
        data[1][1].fill_(math.inf)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        run = train(net, optimizer, data, callbacks=[GradientClip(1.0, error_if_nonfinite=True)], scaler=scaler)
        assert run.step == 10
        assert all(one.isfinite().all() for one in net.parameters())


def test_what_cannot_work_is_said():
    for options in ({}, {"max_norm": 1.0, "value": 1.0}):
        with pytest.raises(ArgumentError, match="one of them"):
            GradientClip(**options)
    with pytest.raises(ArgumentError, match="max_norm must be a finite number above 0, not 0"):
        GradientClip(0)
    with pytest.raises(ArgumentError, match="value must be a finite number above 0, not -1"):
        GradientClip(value=-1)
    with pytest.raises(ArgumentError, match="norm_type must be above 0"):
        GradientClip(1.0, norm_type=0)
    assert [repr(GradientClip(1.0)), repr(GradientClip(value=0.5)), repr(GradientClip(1.0, norm_type=1))] == [
        "GradientClip(1)", "GradientClip(value=0.5)", "GradientClip(1, norm_type=1)",
    ]  # fmt: skip


@pytest.mark.parametrize("task", [pytest.param("", marks=pytest.mark.slow), "-seg"])
def test_in_yolo_it_comes_after_the_trainers_own_clip(yolo, quick, task):
    model, norms = yolo(task), Norms(2)
    attach(model, norms, GradientClip(1e-3), after := Norms(2))
    run = model.train.run
    model.train(**quick(epochs=1))
    assert norms.seen
    assert all(one <= 10 * (1 + 1e-4) for one in norms.seen)  # Ultralytics' own
    assert after.seen == pytest.approx([1e-3] * len(norms.seen), rel=1e-2)
    assert run.history[0]["train/grad_norm_before_clip"] == pytest.approx(sum(norms.seen) / len(norms.seen), rel=1e-3)
    assert run.history[0]["train/grad_clipped"] == 1
