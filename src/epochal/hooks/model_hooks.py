"""Hooks on the layers of a model for the time of one training."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from epochal.core.log import log
from epochal.hooks.hook import Hook
from epochal.hooks.select import refuse_compiled

Forward = Callable[[Any, Any, Any], Any]  # module, its arguments, its output -> None, or another output


class ModelHooks:
    """Sets hooks on chosen layers, knows whether they are ever called, and takes them out again.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(2, 2))
    >>> hooks = ModelHooks(net, {"0": net[0]}, "Layers")
    >>> hooks.after_forward(net[0], lambda module, args, output: None)
    >>> hooks.remove(); len(net[0]._forward_hooks)
    0
    """

    def __init__(self, model: Any, layers: Mapping[str, Any], owner: str) -> None:
        refuse_compiled(model, layers, owner)
        self.layers, self.owner = dict(layers), owner
        self.handles: list[Any] = []
        self.called = self.asked = False

    def after_forward(self, module: Any, call: Forward) -> None:
        """Call ``call(module, args, output)`` after each forward of a module."""
        self.handles.append(module.register_forward_hook(Hook(call)))

    def before_forward(self, module: Any, call: Callable[..., Any]) -> None:
        """Call ``call(module, args, kwargs)`` before each forward of a module."""
        self.handles.append(module.register_forward_pre_hook(Hook(call), with_kwargs=True))

    def check_called(self) -> None:
        """Warn, once, if no layer was called in the first batch in which that was asked."""
        if not self.asked:
            self.asked = True
            if not self.called:
                log().warning(
                    "%s: none of its %d layers was called in the first batch, %s ... If the training calls another copy"
                    " of the model, or one that torch.compile made earlier, give Loop that model, uncompiled.",
                    self.owner, len(self.layers), next(iter(self.layers), "none"),
                )  # fmt: skip

    def remove(self) -> None:
        """Take every hook out."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()


def tensors_in(value: Any) -> Iterator[Any]:
    """Yield the tensors of floats in what a layer is given or returns, however nested.

    >>> import torch
    >>> [one.shape[0] for one in tensors_in({"a": torch.zeros(1), "b": (torch.zeros(2), [torch.zeros(3), 5])})]
    [1, 2, 3]
    """
    if hasattr(value, "is_floating_point"):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from tensors_in(one)
