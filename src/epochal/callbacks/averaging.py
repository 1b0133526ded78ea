"""The base of callbacks that average a model's weights: PyTorch's AveragedModel, saved, restored and put to use."""

from abc import ABC
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from epochal.checkpointing.capture import unwrapped
from epochal.core.callback import Callback
from epochal.hooks.select import torch_module

if TYPE_CHECKING:
    from epochal.core.run import Run


class Averaging(Callback, ABC):
    """Keeps ``module``, a copy of the model with averaged weights (internal).

    ``module`` is there from the start of a training on, also after it; ``updates`` counts what was averaged.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"weight_average"})

    def __init__(self) -> None:
        self.module: Any = None
        self.updates = 0
        self.averaged: Any = None  # torch's AveragedModel, which holds the module, during a training
        self.loaded: Mapping[str, Any] = {}

    def begin(self, run: "Run", **options: Any) -> None:
        """Copy the model; what a checkpoint brought is put into the copy."""
        from torch.optim.swa_utils import AveragedModel

        self.averaged = AveragedModel(torch_module(run.model, run.label(self)), **options)
        self.module = self.averaged.module
        self.put_back()

    def put_back(self) -> None:
        """Put what a checkpoint brought into the copy."""
        if self.updates:
            self.module.load_state_dict(self.loaded)
        self.averaged.n_averaged.fill_(self.updates)
        self.loaded = {}

    def update(self, run: "Run") -> None:
        """Let the model's weights of this moment count."""
        self.averaged.update_parameters(unwrapped(run.model))
        self.updates += 1

    def swap(self, run: "Run") -> None:
        """Exchange the model's numbers and the average's, where they are, bit for bit."""
        import torch

        with torch.no_grad():
            for live, mean in zip(tensors(unwrapped(run.model)), tensors(self.module), strict=True):
                kept = live.clone()
                live.copy_(mean)
                mean.copy_(kept)

    def give(self, run: "Run") -> None:
        """Put the average into the model."""
        import torch

        with torch.no_grad():
            for live, mean in zip(tensors(unwrapped(run.model)), tensors(self.module), strict=True):
                live.copy_(mean)

    def teardown(self, run: "Run") -> None:
        """Keep the averaged model alone."""
        self.averaged = None

    def state_dict(self) -> dict[str, Any]:
        """Return the average, as a ``state_dict`` of the model, and how often it was updated."""
        weights = self.loaded if self.module is None else self.module.state_dict()
        return {"updates": self.updates, "weights": dict(weights) if self.updates else {}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the average back; it is put into a copy of the model when the training starts, or at once in one."""
        self.updates, self.loaded = state["updates"], state["weights"]
        if self.averaged is None:
            self.module = None
        else:
            self.put_back()


def tensors(module: Any) -> Iterator[Any]:
    """Yield the parameters and buffers of a module, each once.

    >>> from torch import nn
    >>> [tuple(one.shape) for one in tensors(nn.BatchNorm1d(2))]
    [(2,), (2,), (2,), (2,), ()]
    """
    return chain(module.parameters(), module.buffers())
