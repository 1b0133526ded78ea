"""The gradients of several batches that one optimizer adds up for one step."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from epochal.core.errors import CapabilityError


class GradientGroup:
    """One optimizer's gradients while they wait for more batches, where the optimizer keeps them.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> group = GradientGroup(torch.optim.SGD([weight], lr=1.0))
    >>> for _ in range(3):
    ...     weight.sum().backward(); group.hold("doctest")
    >>> group.batches, weight.grad
    (3, tensor([3.]))
    >>> weight.sum().backward(); group.close("doctest"); weight.grad
    tensor([1.])
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.batches = 0  # whose gradients are held
        self.held: list[tuple[Any, Any, int]] = []  # every parameter's gradient when the last was held, and its version

    def method(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call that is given this group first."""
        return partial(call, self)

    def parameters(self) -> Iterator[Any]:
        """Yield the parameters of the optimizer."""
        for group in self.optimizer.param_groups:
            yield from group["params"]

    def note(self) -> None:
        """Write down which gradients there are, and how often each was written."""
        found = ((parameter, parameter.grad) for parameter in self.parameters())
        self.held = [(parameter, one, one._version) for parameter, one in found if one is not None]

    def hold(self, owner: str) -> None:
        """Keep the gradients of one more batch."""
        self.check_kept(owner)
        self.batches += 1
        self.note()
        # A scheduler that the loop steps in every batch would warn that the optimizer has not stepped before.
        self.optimizer._opt_called = True

    def check_untouched(self, owner: str) -> None:
        """Raise CapabilityError if gradients came since the last batch was held: ``zero_grad`` was to drop those."""
        known = {id(parameter): (id(gradient), version) for parameter, gradient, version in self.held}
        found = {id(one): (id(one.grad), one.grad._version) for one in self.parameters() if one.grad is not None}
        if found != known:
            raise CapabilityError(
                f"{owner}: zero_grad() was to drop gradients that came after the optimizer's last step(), from another"
                " loss or from a batch that was given up; they cannot be told from those that are accumulated. Detach"
                " what the other loss must not reach, or leave a batch out before its backward()"
            )

    def check_kept(self, owner: str) -> None:
        """Raise CapabilityError if gradients that are held were dropped by other means than ``zero_grad``."""
        for parameter, gradient, _ in self.held if self.batches else ():
            replaceable = gradient.is_sparse or gradient.requires_grad or not parameter.requires_grad
            if parameter.grad is not gradient and not replaceable:
                raise CapabilityError(
                    f"{owner}: gradients that are accumulated were dropped by hand, such as by `parameter.grad = None`;"
                    " call optimizer.zero_grad() for that, which waits for the end of their group"
                )

    def close(self, owner: str) -> None:
        """Make the gradients the mean over their batches, the one that is ending included."""
        self.check_kept(owner)
        number, self.batches, self.held = self.batches + 1, 0, []
        if number == 1:
            return
        import torch

        gradients = [one.grad.detach() for one in self.parameters() if one.grad is not None]
        dense = [one for one in gradients if not one.is_sparse]
        if dense:
            getattr(torch, "_foreach_div_")(dense, number)  # noqa: B009  documented, not in torch's stubs
        for one in gradients:
            if one.is_sparse:
                one.div_(number)

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches are held; their gradients are in the loop's own state."""
        return {"batches": self.batches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the gradients that the loop has put back."""
        self.batches = state["batches"]
        for index, parameter in enumerate(self.parameters()):
            gradient = state.get("gradients", {}).get(str(index))  # 0.1.0 held them here
            if gradient is not None:
                parameter.grad = gradient.to(parameter.device, parameter.dtype, copy=True)
        self.note()
