"""Training a copy of the model for a while: nothing of the training itself is touched."""

import copy
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from epochal.checkpointing.capture import random_state, restore_random_state, unwrapped
from epochal.checkpointing.generators import restorer
from epochal.core.errors import ArgumentError

if TYPE_CHECKING:
    from epochal.callbacks.range_test import RangeTest
    from epochal.core.host import Trial


class LossTrial:
    """A trial by a user's own loss and data: one batch, one step.

    >>> list(LossTrial(print, [1, 2]).batches())
    [1, 2]
    """

    def __init__(self, loss: Callable[[Any, Any], Any], data: Any) -> None:
        self.loss, self.data = loss, data

    def batches(self) -> Iterable[Any]:
        """Return the data; of a DataLoader a twin, since one with persistent workers would go on with ours."""
        if not hasattr(self.data, "_iterator"):
            return self.data
        twin = copy.copy(self.data)
        twin._iterator = None
        return twin

    def step(self, model: Any, optimizer: Any, batch: Any) -> Any:
        """Train the copy on one batch."""
        optimizer.zero_grad()
        loss = self.loss(model, batch)
        if not hasattr(loss, "backward"):
            raise ArgumentError(f"loss(model, batch) must return the loss as a tensor, not {loss!r}")
        loss.backward()
        if all(parameter.grad is None for group in optimizer.param_groups for parameter in group["params"]):
            raise ArgumentError("loss(model, batch) must use the model it is given, a copy; no gradient reached that")
        optimizer.step()
        return loss.detach()


def run_range_test(test: "RangeTest", trial: "Trial", model: Any, optimizer: Any, data: Any = None) -> None:
    """Do a range test on a copy of model and optimizer; everything else is put back as it was."""
    import torch

    back, before = restorer(data), random_state()
    try:
        with untouched(model), torch.enable_grad(), closing(endless(trial)) as batches:
            twin, its_optimizer = copy.deepcopy((unwrapped(model), optimizer))  # together: it steps the copied weights
            if not twin.training:
                twin.train()
            tops = [top_rate(group) for group in its_optimizer.param_groups]
            for rate, batch in zip(test.rates(), batches, strict=False):
                for group, top in zip(its_optimizer.param_groups, tops, strict=True):
                    set_rate(group, rate * top / tops[0] if tops[0] else rate)
                if not test.add(rate, float(trial.step(twin, its_optimizer, batch))):
                    break
    finally:
        restore_random_state(before)
        back()


def endless(trial: "Trial") -> Generator[Any, None, None]:
    """Yield batches, over and over; end when there is none at all."""
    any_batch = True
    while any_batch:
        any_batch = False
        for batch in trial.batches():
            any_batch = True
            yield batch


def top_rate(group: dict[str, Any]) -> float:
    """Return the highest rate of a group's schedule, as far as the group tells.

    >>> top_rate({"lr": 0.004, "initial_lr": 0.004, "max_lr": 0.1}), top_rate({"lr": 0.0, "initial_lr": 0.5})
    (0.1, 0.5)
    """
    return max(float(group[name]) for name in ("lr", "initial_lr", "max_lr") if name in group)


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Set a group's rate; a tensor, as capturable optimizers hold, is filled in place."""
    if hasattr(group["lr"], "fill_"):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


@contextmanager
def untouched(model: Any) -> Generator[None, None, None]:
    """Put gradients and buffers back, should a loss function have used the model itself instead of its copy."""
    grads = [(one, one.grad, None if one.grad is None else one.grad.clone()) for one in model.parameters()]
    buffers = [(one, one.clone()) for one in model.buffers()]
    try:
        yield
    finally:
        for parameter, grad, value in grads:
            parameter.grad = grad
            if grad is not None:
                grad.copy_(value)
        for buffer, value in buffers:
            buffer.copy_(value)
