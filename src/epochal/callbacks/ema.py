"""An exponential moving average of the weights, which is validated in place of them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, final

from epochal.callbacks.averaging import Averaging, tensors
from epochal.checkpointing.capture import unwrapped
from epochal.conditions.arguments import check_number
from epochal.core.errors import ArgumentError

if TYPE_CHECKING:
    from epochal.core.run import Run


@final
class EMA(Averaging):
    """Average the weights exponentially, after every optimizer step; validate, and at the end keep, the average.

    >>> import torch
    >>> from epochal import Loop
    >>> net = torch.nn.Linear(1, 1)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> ema = EMA(0.99)
    >>> with Loop(model=net, optimizer=optimizer, callbacks=[ema]) as run:
    ...     for epoch in run.epochs(2):
    ...         for x in run.batches(torch.ones(5, 8, 1)):
    ...             optimizer.zero_grad()
    ...             net(x).square().mean().backward()
    ...             optimizer.step()
    ...         with run.validation():
    ...             run.log({"val/loss": net(torch.ones(1, 1)).square().mean()})  # of the average
    >>> ema.updates, torch.equal(net.weight, ema.module.weight)
    (10, True)

    decay
        The share of the old average that stays at each step: average = decay * average + (1 - decay) * weights.
    warmup
        Begin with less: at update n (0, 1 ...) the decay is at most (1 + n) / (10 + n), as in TensorFlow's
        ``ExponentialMovingAverage``, so that the first weights are soon forgotten.
    use_buffers
        Average the buffers too, such as BatchNorm's statistics; else they are the model's own of the last step.
    swap
        Have the average in the model during every validation, and the weights back after it, bit for bit, also when
        the validation raises.
    keep
        Leave the average in the model when the training has ended, stopped or completed.

    It is PyTorch's ``AveragedModel`` with ``get_ema_multi_avg_fn``, bit for bit: the first update copies the weights.
    Nothing is read from the device. ``ema.module`` is the averaged model, also after the training. Checkpoints hold the
    live weights in ``model``, which a resumed training needs, and the average in the state of this callback.
    ``CapabilityError`` where the trainer averages the weights itself. Source: Polyak and Juditsky, "Acceleration of
    stochastic approximation by averaging" (1992).
    """

    def __init__(
        self,
        decay: float = 0.999,
        *,
        warmup: bool = False,
        use_buffers: bool = False,
        swap: bool = True,
        keep: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.decay = check_number(decay, owner="EMA", argument="decay")
        if not 0 <= self.decay < 1:
            raise ArgumentError(f"EMA: decay must be at least 0 and below 1, such as 0.999, not {decay!r}")
        self.warmup, self.use_buffers, self.swapping, self.keep = warmup, use_buffers, swap, keep
        self.swapped = False
        self.step = 0  # run.step of the last update: other optimizers of the loop have steps too
        if name is not None:
            self.name = name

    def __repr__(self) -> str:
        return f"EMA({self.decay:g})"

    def on_train_start(self, run: "Run") -> None:
        """Copy the model."""
        self.swapped, self.step = False, run.step
        self.begin(run, use_buffers=self.use_buffers)

    def optimizer_step(self, run: "Run") -> None:
        """Let the new weights count."""
        if run.step == self.step:
            return
        self.step = run.step
        if self.updates:
            self.blend(run)
        else:
            self.update(run)

    def blend(self, run: "Run") -> None:
        """Do what ``AveragedModel.update_parameters`` does from its second call on, which makes the device wait."""
        import torch
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        model, module = unwrapped(run.model), self.module
        share = (1 + self.updates) / (10 + self.updates) if self.warmup else 1.0
        average = get_ema_multi_avg_fn(min(self.decay, share))
        of = tensors if self.use_buffers else type(module).parameters
        for means, weights in alike(zip(of(module), of(model), strict=True)):
            average(means, weights, self.updates)
        if not self.use_buffers and (buffers := list(module.buffers())):
            with torch.no_grad():
                foreach_copy: Any = getattr(torch, "_foreach_copy_")  # noqa: B009  documented, not in torch's stubs
                foreach_copy(buffers, list(model.buffers()))
        self.updates += 1

    def on_val_start(self, run: "Run") -> None:
        """Have the average validated."""
        if self.swapping and self.updates and not self.swapped:
            self.swap(run)
            self.swapped = True

    def on_val_end(self, run: "Run") -> None:
        """Train on with the weights."""
        if self.swapped:
            self.swapped = False
            self.swap(run)

    def on_train_end(self, run: "Run") -> None:
        """Leave the average in the model, if that is wanted and the training did not fail."""
        if self.keep and self.updates and run.end_reason in ("completed", "stopped"):
            self.give(run)

    def teardown(self, run: "Run") -> None:
        """Leave the weights in the model if a validation was not left."""
        self.on_val_end(run)
        super().teardown(run)


def alike(pairs: Iterable[tuple[Any, Any]]) -> Iterable[tuple[list[Any], list[Any]]]:
    """Return pairs of an average and a weight as two lists for each device and type, for functions on many tensors.

    >>> import torch
    >>> one, two = torch.zeros(1), torch.zeros(1, dtype=torch.int)
    >>> [len(means) for means, _ in alike([(one, one), (two, two), (one, one)])]
    [2, 1]
    """
    groups: dict[Any, tuple[list[Any], list[Any]]] = {}
    for mean, weight in pairs:
        found = groups.setdefault((mean.device, mean.dtype), ([], []))
        found[0].append(mean)
        found[1].append(weight.detach())
    return groups.values()
