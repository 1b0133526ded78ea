"""Keep layers as they are for some epochs: their weights, and their BatchNorm statistics."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, final

from epochal.conditions.arguments import check_count
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError
from epochal.hooks.method import Method
from epochal.hooks.select import Which, select, torch_module

if TYPE_CHECKING:
    from epochal.core.run import Run


@final
class FreezeLayers(Callback):
    """Freeze the layers whose names match, from one epoch until another; several of these make a schedule.

    >>> import torch
    >>> from epochal import Loop
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    >>> with Loop(model=net, optimizer=optimizer, callbacks=[FreezeLayers("0", until=2)]) as run:
    ...     for epoch in run.epochs(3):
    ...         print(epoch, [parameter.requires_grad for parameter in net.parameters()])
    0 [False, False, True, True]
    1 [False, False, True, True]
    2 [True, True, True, True]

    which
        A pattern of names, in which ``*`` stands for any characters, dots included; a class of modules; or several of
        them. A layer is frozen with everything inside it. A pattern that matches nothing is an ``ArgumentError`` that
        names the nearest layers.
    until
        The epoch (0-based) in which they are trained again; None: never in this training.
    start
        The first epoch in which they are frozen.

    While a layer is frozen its parameters have ``requires_grad=False`` and no gradient, so that momentum and weight
    decay do not move them either, and what keeps running statistics, such as BatchNorm, stays in eval mode whatever
    ``model.train()`` says. Parameters that did not require a gradient before are left alone. When the training ends,
    however it ends, everything is as it was: a layer that is frozen still requires gradients again. Where a layer is
    meant by several of these, it is frozen as long as one of them says so. ``ArgumentError`` when nothing is left to
    train.
    """

    def __init__(self, which: Which, *, until: int | None = None, start: int = 0, name: str | None = None) -> None:
        if start != 0:
            check_count(start, owner="FreezeLayers", argument="start")
        if until is not None:
            check_count(until, owner="FreezeLayers", argument="until")
            if until <= start:
                raise ArgumentError(f"FreezeLayers: until={until} must come after start={start}")
        self.which, self.start, self.until = which, start, until
        self.layers: dict[str, Any] = {}
        self.frozen: list[Any] = []  # the parameters that this callback has frozen
        self.methods: list[Method] = []  # train() of what keeps running statistics
        if name is not None:
            self.name = name

    def __repr__(self) -> str:
        start = f", start={self.start}" if self.start else ""
        until = "" if self.until is None else f", until={self.until}"
        return f"FreezeLayers({self.which!r}{start}{until})"

    def on_train_start(self, run: "Run") -> None:
        """Find the layers."""
        self.layers = select(run.model, self.which, run.label(self))

    def on_train_epoch_start(self, run: "Run") -> None:
        """Freeze or thaw, as the epoch wants it."""
        if self.wanted(run.epoch):
            self.freeze(run)
        else:
            self.thaw(run)

    def on_fit_epoch_end(self, run: "Run") -> None:
        """Thaw before the next epoch begins, so that another of these can freeze what it means."""
        if not self.wanted(run.epoch + 1):
            self.thaw(run)

    def teardown(self, run: "Run") -> None:
        """Leave the model as it was."""
        if self.frozen or self.methods:
            self.thaw(run)
        self.layers = {}

    def wanted(self, epoch: int) -> bool:
        """Say whether the layers are frozen in an epoch."""
        return self.start <= epoch and (self.until is None or epoch < self.until)

    def freeze(self, run: "Run") -> None:
        """Freeze what is not frozen yet."""
        model = torch_module(run.model, self.name)
        for parameter in self.parameters():
            if parameter.requires_grad:
                parameter.requires_grad_(False)
                self.frozen.append(parameter)
            parameter.grad = None
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ArgumentError(f"{run.label(self)}: no parameter is left to train in epoch {run.epoch}")
        ours = {id(method.owner) for method in self.methods}
        for module in self.modules():
            if getattr(module, "running_mean", None) is not None:
                if id(module) not in ours:
                    self.methods.append(Method(module, "train", stay_in_eval))
                module.train(False)

    def thaw(self, run: "Run") -> None:
        """Train again what this callback has frozen."""
        while self.frozen:
            self.frozen.pop().requires_grad_(True)
        while self.methods:
            method = self.methods.pop()
            method.remove()
            method.owner.train(torch_module(run.model, self.name).training)

    def modules(self) -> Iterator[Any]:
        """Yield the modules inside the layers, each once."""
        seen: set[int] = set()
        for layer in self.layers.values():
            for module in layer.modules():
                if id(module) not in seen:
                    seen.add(id(module))
                    yield module

    def parameters(self) -> Iterator[Any]:
        """Yield the parameters inside the layers."""
        for module in self.modules():
            yield from module.parameters(recurse=False)


def stay_in_eval(original: Any, mode: bool = True) -> Any:
    """Stand in place of a module's ``train``: the mode is eval, whatever is asked for."""
    return original(False)
