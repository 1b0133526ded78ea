"""The norm of every layer's output, at hardly any cost."""

from functools import partial
from typing import TYPE_CHECKING, Any

from epochal.callbacks.inside import Inside
from epochal.core.metrics import At
from epochal.hooks.model_hooks import ModelHooks, tensors_in
from epochal.hooks.norms import combined, on_one_device, size, sizes
from epochal.hooks.readout import Reading, Readout
from epochal.hooks.select import Which, leaves, select

if TYPE_CHECKING:
    from epochal.core.run import Run


class ActivationMonitor(Inside):
    """Measure the L2 norm of what every layer returns, in training batches.

    >>> import torch
    >>> from epochal import Loop
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Identity())
    >>> monitor = ActivationMonitor()
    >>> with Loop(model=net, callbacks=[monitor]) as run:
    ...     for epoch in run.epochs(1):
    ...         for x in run.batches([torch.tensor([[3.0, 4.0]])]):
    ...             _ = net(x)
    >>> monitor.latest
    {'0': 5.0, '1': 5.0}

    which
        A pattern of layer names, a class of modules, or several of them, as for ``Layers``; None means every layer that
        holds no other.
    every
        n: in the batches of the n-th, 2n-th ... optimizer step.

    A layer that is called several times in a batch has the norm of all its outputs together. The norms stay on the
    device, each one call when the output is there; they reach the host in one copy per batch that nobody waits for, and
    are delivered one measurement later, on a thread of their own: ``latest`` maps layer -> norm, loggers get them as
    ``activation/<layer>``. Layers inside a model that ``torch.compile`` has taken over are refused.
    """

    def __init__(self, which: Which | None = None, *, every: int = 1, name: str | None = None) -> None:
        super().__init__(every, name)
        self.which = which
        self.latest: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"ActivationMonitor({self.which!r}, every={self.every})"

    def on_train_start(self, run: "Run") -> None:
        """Find the layers and set the hooks."""
        self.latest = {}
        self.watch = ActivationWatch(self, run)

    def on_train_batch_start(self, run: "Run") -> None:
        """Look in the batches of every n-th step."""
        if self.watch is not None:
            self.watch.due = self.due(run)

    def on_train_batch_end(self, run: "Run") -> None:
        """Queue what the batch measured."""
        watch = self.watch
        if watch is not None and watch.due:
            watch.due = False
            watch.push()

    def on_train_epoch_abort(self, run: "Run") -> None:
        """Forget the batch that did not end."""
        if self.watch is not None:
            self.watch.forget()


class ActivationWatch:
    """The monitoring of one training: hooks that measure, and the norms of the batch so far."""

    def __init__(self, owner: ActivationMonitor, run: "Run") -> None:
        import torch

        self.owner, self.engine, label = owner, run.engine, run.label(owner)
        chosen = leaves(run.model, label) if owner.which is None else select(run.model, owner.which, label)
        self.hooks = ModelHooks(run.model, chosen, label)
        self.due = False
        self.names: list[str] = []
        self.norms: list[Any] = []
        self.without_graph = torch.no_grad()
        self.readout = Readout(label, self.deliver)
        for name, module in chosen.items():
            self.hooks.after_forward(module, partial(self.measure, name))

    def measure(self, name: str, _module: Any, _args: Any, output: Any) -> None:
        """Compute the norm of a layer's output, on the device: the next layer may overwrite the output."""
        if not self.due:
            return
        with self.without_graph:
            for tensor in tensors_in(output):
                self.names.append(name)
                self.norms.append(size(tensor))

    def push(self) -> None:
        """Queue one copy of this batch's norms to the host."""
        self.hooks.called = bool(self.norms)
        self.hooks.check_called()
        at = At(self.engine.epoch, self.engine.batch, self.engine.step)
        if self.norms:
            self.readout.push(*on_one_device(self.names, self.norms, sizes), at)
        self.forget()

    def forget(self) -> None:
        """Begin the next batch with nothing."""
        self.due, self.names, self.norms = False, [], []

    def close(self) -> None:
        """Take the hooks out and end the thread."""
        self.hooks.remove()
        self.readout.close()

    def deliver(self, reading: Reading) -> None:
        """Hand the norms of one batch on; on the readout's thread."""
        found = combined(reading.about, reading.numbers)
        self.owner.latest = found
        if self.engine.sinks:
            self.engine.publish("layers", {f"activation/{name}": one for name, one in found.items()}, reading.at)
