"""Clip the gradients of every optimizer step."""

from math import inf
from typing import TYPE_CHECKING, Any, final

from epochal.conditions.arguments import check_amount, check_number
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError

if TYPE_CHECKING:
    from epochal.core.run import Run

NORM, CLIPPED = "train/grad_norm_before_clip", "train/grad_clipped"


@final
class GradientClip(Callback):
    """Clip the gradients right before each optimizer step, by their norm or by value, as PyTorch's own functions do.

    >>> import torch
    >>> from epochal import Loop
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    >>> with Loop(model=net, optimizer=optimizer, callbacks=[GradientClip(0.5)]) as run:
    ...     for epoch in run.epochs(1):
    ...         for x in run.batches([torch.full((1, 1), 8.0)]):
    ...             net(x).sum().backward()
    ...             optimizer.step()
    >>> net.weight.grad, run.history[0]["train/grad_norm_before_clip"]
    (tensor([[0.5000]]), 8.0)

    max_norm, norm_type
        The norm, of all gradients of the optimizer as one vector, that is not exceeded: ``clip_grad_norm_``.
    value
        In place of ``max_norm``: the absolute value that no entry exceeds: ``clip_grad_value_``.
    error_if_nonfinite
        Raise where the norm is NaN or infinite, by which the whole gradient would become NaN. The norm is read for
        that: the device is waited for in every step.
    foreach
        As for PyTorch's functions: None takes the fast way where there is one.

    Gradients are clipped as the step would use them: accumulated over their group and unscaled from AMP. It logs,
    unread, ``train/grad_norm_before_clip`` (for ``value`` the largest absolute entry) and ``train/grad_clipped``, 1
    where it was clipped: its mean over an epoch is the share of steps that were. Further optimizers of a ``Loop`` have
    ``/optimizer1`` ... behind these names. Source: Pascanu et al., "On the difficulty of training recurrent neural
    networks" (2013). ``ArgumentError`` unless exactly one of ``max_norm`` and ``value`` is a number above 0.
    """

    def __init__(
        self,
        max_norm: float | None = None,
        *,
        value: float | None = None,
        norm_type: float = 2.0,
        error_if_nonfinite: bool = False,
        foreach: bool | None = None,
        name: str | None = None,
    ) -> None:
        if (max_norm is None) == (value is None):
            raise ArgumentError(
                f"GradientClip: give max_norm or value, one of them, not max_norm={max_norm!r}, value={value!r}"
            )
        argument, limit = ("max_norm", max_norm) if value is None else ("value", value)
        self.limit = check_amount(limit, owner="GradientClip", argument=argument)
        self.by_value = value is not None
        self.norm_type = inf if self.by_value else check_number(norm_type, owner="GradientClip", argument="norm_type")
        if self.norm_type <= 0:
            raise ArgumentError(f"GradientClip: norm_type must be above 0, such as 2 or inf, not {norm_type!r}")
        self.error_if_nonfinite, self.foreach = error_if_nonfinite, foreach
        self.others: list[Any] = []  # the optimizers beside run.optimizer, in the order in which they stepped
        if name is not None:
            self.name = name

    def __repr__(self) -> str:
        if self.by_value:
            return f"GradientClip(value={self.limit:g})"
        kind = "" if self.norm_type == 2 else f", norm_type={self.norm_type:g}"
        return f"GradientClip({self.limit:g}{kind})"

    def before_step(self, run: "Run", optimizer: Any) -> None:
        """Clip, and log what the gradients were before."""
        parameters = [one for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        if not parameters:
            return
        norm = self.clip_value(parameters) if self.by_value else self.clip_norm(parameters)
        end = self.ending(run, optimizer)
        run.log({NORM + end: norm, CLIPPED + end: norm > self.limit})

    def clip_norm(self, parameters: list[Any]) -> Any:
        """Clip by the norm and return what it was, as a tensor."""
        from torch.nn.utils import clip_grad_norm_

        return clip_grad_norm_(
            parameters, self.limit, self.norm_type, error_if_nonfinite=self.error_if_nonfinite, foreach=self.foreach
        )

    def clip_value(self, parameters: list[Any]) -> Any:
        """Clip by value and return the largest absolute entry, as a tensor."""
        import torch
        from torch.nn.utils import clip_grad_value_

        gradients = [one.grad.detach() for one in parameters]
        first = gradients[0].device
        largest = torch.stack([one.abs().max().to(first, non_blocking=True) for one in gradients]).max()
        if self.error_if_nonfinite and not bool(largest.isfinite()):
            raise RuntimeError(f"GradientClip: the largest absolute entry of the gradients is {float(largest)}")
        clip_grad_value_(parameters, self.limit, foreach=self.foreach)
        return largest

    def ending(self, run: "Run", optimizer: Any) -> str:
        """Return what stands behind the names of an optimizer's metrics."""
        if optimizer is run.optimizer:
            return ""
        if not any(one is optimizer for one in self.others):
            self.others.append(optimizer)
        place = next(index for index, one in enumerate(self.others, start=1) if one is optimizer)
        return f"/optimizer{place}"

    def teardown(self, run: "Run") -> None:
        """Forget the optimizers."""
        self.others.clear()
