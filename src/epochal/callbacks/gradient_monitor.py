"""The norm of every parameter's gradient, at hardly any cost."""

import math
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from epochal.callbacks.inside import Inside
from epochal.core.errors import ArgumentError
from epochal.core.metrics import At
from epochal.hooks.norms import combined, norms, on_one_device
from epochal.hooks.readout import Reading, Readout
from epochal.hooks.select import parameters

if TYPE_CHECKING:
    from epochal.core.run import Run

TOTAL = "train/grad_norm"


class GradientMonitor(Inside):
    """Measure the L2 norm of every parameter's gradient, right before the optimizer steps.

    >>> import torch
    >>> from epochal import Loop
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> monitor = GradientMonitor()
    >>> with Loop(model=net, optimizer=optimizer, callbacks=[monitor]) as run:
    ...     for epoch in run.epochs(1):
    ...         for x in run.batches([torch.tensor([[3.0, 4.0]])]):
    ...             net(x).sum().backward()
    ...             optimizer.step()
    >>> monitor.latest
    {'weight': 5.0}

    which
        A pattern of parameter names; ``*`` stands for any characters, dots included.
    every
        n: at the n-th, 2n-th ... optimizer step.

    The gradients are those that the optimizer is about to use: accumulated over the batches of the step, unscaled
    (AMP), averaged over the processes (DDP), clipped if the trainer clips, or a ``GradientClip`` that stands before
    this callback in the list; put this one first to see them unclipped. All norms of a step are computed in one call
    and stay on the device; they reach the host in one copy that nobody waits for, and are delivered one measurement
    later, on a thread of their own: ``latest`` maps parameter -> norm, loggers get them as ``gradient/<parameter>``,
    and the norm of all together is the metric ``train/grad_norm``, for an epoch the mean over its steps. A parameter
    without a gradient is left out.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def __init__(self, which: str = "*", *, every: int = 1, name: str | None = None) -> None:
        if not isinstance(which, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"GradientMonitor: which must be a pattern of parameter names, not {which!r}")
        super().__init__(every, name)
        self.which = which
        self.latest: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"GradientMonitor({self.which!r}, every={self.every})"

    def on_train_start(self, run: "Run") -> None:
        """Find the parameters."""
        self.latest = {}
        self.watch = GradientWatch(self, run)

    def before_step(self, run: "Run", optimizer: Any) -> None:
        """Measure, and log what was measured before."""
        if self.due(run):
            self.watch.measure(run, optimizer)

    def on_train_epoch_start(self, run: "Run") -> None:
        """Begin the mean of another epoch."""
        if self.watch is not None:
            self.watch.of_epoch.clear()

    def on_train_epoch_end(self, run: "Run") -> None:
        """Log the mean of the epoch, its last steps included."""
        if self.watch is not None:
            self.watch.end_epoch(run)


class GradientWatch:
    """The monitoring of one training."""

    def __init__(self, owner: GradientMonitor, run: "Run") -> None:
        self.owner, self.engine = owner, run.engine
        label = run.label(owner)
        self.names = {id(one): name for name, one in parameters(run.model, owner.which, label).items()}
        self.parameters: dict[int, list[tuple[str, Any]]] = {}  # of each optimizer
        self.arrived: deque[float] = deque(maxlen=64)  # total norms that are not logged yet
        self.of_epoch: list[float] = []
        self.readout = Readout(label, self.deliver)

    def of(self, optimizer: Any) -> list[tuple[str, Any]]:
        """Return the watched parameters that an optimizer changes, by name."""
        found = self.parameters.get(id(optimizer))
        if found is None:
            members = [one for group in optimizer.param_groups for one in group["params"]]
            found = [(self.names[id(one)], one) for one in members if id(one) in self.names]
            self.parameters[id(optimizer)] = found
        return found

    def measure(self, run: "Run", optimizer: Any) -> None:
        """Queue the norms of this step on the device, log the total that has arrived."""
        with_gradient = [(name, gradient) for name, one in self.of(optimizer) if (gradient := one.grad) is not None]
        at = At(self.engine.epoch, self.engine.batch, self.engine.step + 1)
        if with_gradient:
            names, gradients = map(list, zip(*with_gradient, strict=True))
            self.readout.push(*on_one_device(names, gradients, norms), at)
        while self.arrived:
            run.log({TOTAL: self.arrived.popleft()})

    def end_epoch(self, run: "Run") -> None:
        """Wait for the last norms; an epoch's value is the mean over its steps."""
        self.readout.flush()
        self.arrived.clear()
        if self.of_epoch:
            run.log({TOTAL: sum(self.of_epoch) / len(self.of_epoch)})

    def close(self) -> None:
        """End the thread."""
        self.readout.close()

    def deliver(self, reading: Reading) -> None:
        """Hand the norms of one step on; on the readout's thread."""
        found = combined(reading.about, reading.numbers)
        self.owner.latest = found
        total = math.hypot(*found.values())
        self.arrived.append(total)
        self.of_epoch.append(total)
        if self.engine.sinks:
            self.engine.publish("layers", {f"gradient/{name}": one for name, one in found.items()}, reading.at)
