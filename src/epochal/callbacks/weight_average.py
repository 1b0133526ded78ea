"""Stochastic weight averaging: the mean of the weights at the ends of the last epochs."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from epochal.callbacks.averaging import Averaging
from epochal.callbacks.schedule import check_span, span
from epochal.callbacks.torch_schedule import TorchSchedule
from epochal.checkpointing.capture import unwrapped
from epochal.conditions.arguments import check_amount, check_count
from epochal.core.errors import ArgumentError
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.core.moment import Moment
    from epochal.core.run import Run


@final
class WeightAverage(Averaging):
    """Average the weights at the ends of the last epochs (SWA); at the end the model holds the average.

    >>> import torch
    >>> from epochal import Loop
    >>> net = torch.nn.Linear(1, 1)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> average = WeightAverage(start=2, lr=0.05)
    >>> with Loop(model=net, optimizer=optimizer, callbacks=[average]) as run:
    ...     for epoch in run.epochs(6):
    ...         for x in run.batches(torch.ones(5, 8, 1)):
    ...             optimizer.zero_grad()
    ...             net(x).square().mean().backward()
    ...             optimizer.step()
    >>> average.updates, torch.equal(net.weight, average.module.weight)
    (4, True)

    start
        The first epoch (0-based) at whose end the weights count, or a share of the training below 1.
    every
        They count at the end of every n-th epoch from there on.
    lr, anneal_epochs, anneal_strategy
        The learning rate that is approached from the epoch after ``start`` on, within ``anneal_epochs`` epochs, along
        half a cosine ("cos") or a line ("linear"): PyTorch's ``SWALR``. It holds, whatever schedule there is; factors
        of ``run.scale_lr`` and ``ReduceLROnPlateau`` still multiply it. A number, or one per parameter group; None
        leaves the rates to their schedule.
    loader
        Batches from which the statistics of BatchNorm are computed anew for the average, at the end: PyTorch's
        ``update_bn``. A model without BatchNorm needs none.

    It wraps PyTorch's ``AveragedModel``. An epoch that a stop cuts short does not count; nothing is averaged in a
    training that ends before ``start``: the model keeps its weights then, which is said. Checkpoints hold the live
    weights in ``model``, and the average in the state of this callback. ``average.module`` is the averaged model.
    ``CapabilityError`` where the trainer averages the weights itself. Source: Izmailov et al., "Averaging weights leads
    to wider optima and better generalization" (2018).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"weight_average", "set_lr"})

    def __init__(
        self,
        start: int | float = 0.75,
        *,
        every: int = 1,
        lr: float | list[float] | None = None,
        anneal_epochs: int = 10,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        loader: Iterable[Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        check_span(start, "WeightAverage", "start")
        check_count(every, owner="WeightAverage", argument="every")
        for one in lr if isinstance(lr, list) else [] if lr is None else [lr]:
            check_amount(one, owner="WeightAverage", argument="lr", zero=True)
        if anneal_epochs != 0:
            check_count(anneal_epochs, owner="WeightAverage", argument="anneal_epochs")
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(f'WeightAverage: anneal_strategy must be "cos" or "linear", not {anneal_strategy!r}')
        self.start, self.every, self.lr = start, every, lr
        self.anneal_epochs, self.loader = anneal_epochs, loader
        self.anneal_strategy: Literal["cos", "linear"] = anneal_strategy
        self.first = 0  # the epoch that start stands for in this training
        self.base: dict[str, float] = {}  # the groups' rates in that epoch
        self.schedule: TorchSchedule | None = None
        if name is not None:
            self.name = name

    def __repr__(self) -> str:
        rate = "" if self.lr is None else f", lr={self.lr}"
        return f"WeightAverage({self.start}{rate})"

    def on_train_start(self, run: "Run") -> None:
        """Copy the model, and say what cannot work."""
        if isinstance(self.start, float) and run.num_epochs is None:
            raise ArgumentError(
                f"{run.label(self)}: start={self.start} is a share of the training, but the number of epochs is not"
                " known; give an epoch"
            )
        self.first = span(self.start, run.num_epochs)
        self.begin(run)
        self.schedule = None if self.lr is None else TorchSchedule(self.scheduler)
        self.anneal(run, run.engine.next_epoch)
        normalized = any(getattr(one, "running_mean", None) is not None for one in self.module.modules())
        if normalized and self.loader is None:
            log().warning(
                "%s: the model has BatchNorm, whose statistics do not fit averaged weights; give loader=, the training"
                " batches from which they are computed at the end.", run.label(self),
            )  # fmt: skip

    def scheduler(self, optimizer: Any) -> Any:
        """Return PyTorch's scheduler for an optimizer."""
        from torch.optim.swa_utils import SWALR

        rate: Any = self.lr
        return SWALR(optimizer, swa_lr=rate, anneal_epochs=self.anneal_epochs, anneal_strategy=self.anneal_strategy)

    def on_train_epoch_start(self, run: "Run") -> None:
        """Note the rates from which the others are approached."""
        host, rates = run.engine.rate_host, run.engine.rates
        if run.epoch == self.first and host is not None:
            self.base = {group: rates.own(group, own) for group, own in host.groups().items()}

    def on_train_epoch_end(self, run: "Run") -> None:
        """Let the epoch's weights count."""
        since = run.epoch - self.first
        if since >= 0 and since % self.every == 0 and not run.engine.epoch_cut:
            self.update(run)

    @property
    def at_batches(self) -> bool:
        """False: the rates change at epochs' ends."""
        return False

    def at_safe_point(self, run: "Run", now: "Moment") -> None:
        """Set the rates of the next epoch."""
        if now.ended == "epoch":
            self.anneal(run, now.epoch + 1)

    def anneal(self, run: "Run", epoch: int) -> None:
        """Set the rates of an epoch, if they are ours."""
        if self.schedule is not None and epoch > self.first and self.base:
            run.engine.rates.replace(self.schedule.rates(self.base, epoch - self.first, None))
            run.engine.take_over_rates()

    def on_train_end(self, run: "Run") -> None:
        """Leave the average in the model, its BatchNorm with statistics of its own."""
        if run.end_reason not in ("completed", "stopped"):
            return
        if not self.updates:
            late = f"{run.label(self)}: no epoch from {self.first} on was finished; the model keeps its last weights"
            run.engine.notes.append(late)
            log().warning(late)
            return
        if self.loader is not None:
            from torch.optim.swa_utils import update_bn

            update_bn(self.loader, self.averaged, device=next(unwrapped(run.model).parameters()).device)
        self.give(run)

    def teardown(self, run: "Run") -> None:
        """Forget the schedule."""
        self.schedule = None
        super().teardown(run)

    def state_dict(self) -> dict[str, Any]:
        """Return the average, and the rates from which the others are approached."""
        return {**super().state_dict(), "base": dict(self.base)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take both back."""
        super().load_state_dict(state)
        self.base = dict(state["base"])
